/**
 * What each agent has said that it holds: our agents name it on their streams; of others, what they last fetched is known.
 * In this server's memory alone; while authorities are rotated, coverage.ts shares what matters with the other servers.
 */
import { createHash } from 'node:crypto';
import { authorityId } from '../../src/crypto/certificate.ts';
import { Fault } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { authorityCertificate } from '../../src/spiffe/x509-svid.ts';

/** Of one authority, by its id: whether the agent knows it as tainted, and still serves something that it signed. */
export type Held = ReadonlyMap<string, { readonly tainted: boolean; readonly inUse: boolean }>;

export interface Holding {
  readonly held: Held;
  readonly polling: boolean;
  /** Whether its stream is open, or its last poll recent. */
  readonly live: boolean;
  /** Milliseconds of the last message or poll. */
  readonly heardAt: number;
}

/** mutual.server.v1.Holdings. */
export interface WireHoldings {
  readonly x509_authorities: readonly WireHeld[];
  readonly jwt_authorities: readonly WireHeld[];
  readonly wit_authorities: readonly WireHeld[];
}
interface WireHeld {
  readonly authority_id: string;
  readonly tainted: boolean;
  readonly in_use: boolean;
}

export interface Holdings {
  /** A stream of this agent is open; the returned function says that it has ended. */
  opened(agent: SpiffeId): () => void;
  /** Takes what an agent says on its stream. Throws `input/invalid`. */
  told(agent: SpiffeId, holdings: WireHoldings): void;
  /** An agent fetched this bundle as itself; `signedBy` are the authorities above the SVID that it presented. */
  fetched(agent: SpiffeId, bundle: Bundle, signedBy: readonly string[]): void;
  of(agent: SpiffeId): Holding | undefined;
  agents(): Iterable<SpiffeId>;
  /** Agents that polled lately, and have no stream. */
  polling(): Iterable<SpiffeId>;
  /** Forgets agents that are not among these. */
  keep(known: { has(agent: SpiffeId): boolean }): void;
}

/** A bundle never holds more of one kind (Bundle.AppendBundle), and none of their names is longer. */
const caps = { authorities: 1000, name: 256 } as const;
const inUse = { tainted: true, inUse: true } as const;
/** A poll counts as a sign of life for so long, milliseconds. */
const pollLife = 60_000;

interface Said {
  held: Held | undefined;
  polling: boolean;
  streams: number;
  heardAt: number;
}

export function holdings(clock: Pick<Clock, 'now'>): Holdings {
  const said = new Map<SpiffeId, Said>();
  /** Most agents say the same: it is held once. */
  const alike = new Map<string, WeakRef<Held & object>>();
  const ofBundle = new WeakMap<Bundle, Held>();

  const saidBy = (agent: SpiffeId): Said => {
    let one = said.get(agent);
    if (one === undefined) {
      one = { held: undefined, polling: false, streams: 0, heardAt: 0 };
      said.set(agent, one);
    }
    one.heardAt = clock.now();
    return one;
  };

  function shared(wire: WireHoldings): Held {
    const all = [...wire.x509_authorities, ...wire.jwt_authorities, ...wire.wit_authorities];
    if (all.length > 3 * caps.authorities || all.some(({ authority_id }) => authority_id.length > caps.name))
      throw new Fault('input/invalid', `${all.length} authorities, or their names, are too many for one bundle`);
    const digest = createHash('sha256');
    for (const { authority_id, tainted, in_use } of all) digest.update(`${authority_id} ${tainted} ${in_use}\n`);
    const key = digest.digest('base64');
    const known = alike.get(key)?.deref();
    if (known !== undefined) return known;
    const held: Held = new Map(
      all.map(({ authority_id, tainted, in_use }) => [authority_id, { tainted, inUse: in_use }]),
    );
    for (const [name, one] of alike) if (one.deref() === undefined) alike.delete(name);
    alike.set(key, new WeakRef(held));
    return held;
  }

  function heldIn(bundle: Bundle): Held {
    let held = ofBundle.get(bundle);
    if (held === undefined) {
      const keys = [...bundle.jwtAuthorities, ...bundle.witAuthorities];
      const entries: [string, boolean][] = keys.map(({ keyId, tainted }) => [keyId, tainted]);
      for (const authority of bundle.x509Authorities) {
        const certificate = authorityCertificate(authority);
        if (certificate !== undefined) entries.push([authorityId(certificate), authority.tainted]);
      }
      held = new Map(entries.map(([id, tainted]) => [id, { tainted, inUse: false }]));
      ofBundle.set(bundle, held);
    }
    return held;
  }

  return {
    opened(agent) {
      const one = saidBy(agent);
      one.streams += 1;
      return () => {
        one.streams -= 1;
        one.heardAt = clock.now();
      };
    },
    told(agent, wire) {
      Object.assign(saidBy(agent), { held: shared(wire), polling: false });
    },
    fetched(agent, bundle, signedBy) {
      const one = saidBy(agent);
      // What an agent says itself counts for more.
      if (one.streams > 0) return;
      const held = heldIn(bundle);
      const used = signedBy.filter((id) => held.get(id)?.tainted);
      one.polling = true;
      one.held = used.length === 0 ? held : new Map([...held, ...used.map((id) => [id, inUse] as const)]);
    },
    of(agent) {
      const one = said.get(agent);
      if (one?.held === undefined) return undefined;
      const live = one.streams > 0 || (one.polling && clock.now() - one.heardAt < pollLife);
      return { held: one.held, polling: one.polling, live, heardAt: one.heardAt };
    },
    agents: () => said.keys(),
    *polling() {
      for (const [agent, one] of said)
        if (one.polling && one.streams === 0 && clock.now() - one.heardAt < pollLife) yield agent;
    },
    keep(known) {
      for (const [agent, { streams }] of said) if (streams === 0 && !known.has(agent)) said.delete(agent);
    },
  };
}
