/**
 * Rotations as a server takes part in them: it does each step for the authorities that it holds, shares what its agents
 * hold, and, when somebody asks, counts all agents and takes the rotation to its next step. Each step is one write of
 * the document with compare-and-swap, so that any number of servers and commands may do this at the same time.
 */
import { Fault, quote } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import { type Clock, sleep } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import type { Authority } from '../authority/authority.ts';
import { readSlots, type Slots } from '../authority/slots.ts';
import { knownWithin, sharedHolder } from '../authority/slots-document.ts';
import type { UpstreamRoots } from '../authority/upstream-roots.ts';
import type { World } from '../entries/world.ts';
import type { Journal, Store } from '../store/store.ts';
import { type Coverage, countCoverage, sharedStands } from './coverage.ts';
import type { Holdings } from './holdings.ts';
import {
  advanced,
  authorityKinds,
  begin,
  goalOf,
  hasDone,
  holderOf,
  type Kind,
  kindOf,
  type Mode,
  preparedAgain,
  type Rotation,
  readRotation,
  staysBelow,
  steps,
  stepsDone,
  wanted,
  withNext,
} from './rotation.ts';

export interface ConductPorts {
  readonly store: Pick<Store, 'journal' | 'federation'>;
  readonly world: World;
  /** This server's authorities, and what renews its own SVID under them. */
  readonly authorities: {
    // biome-ignore lint/suspicious/noExplicitAny: what they sign with does not matter here
    readonly x509: Authority<any>;
    // biome-ignore lint/suspicious/noExplicitAny: likewise
    readonly jwt: Authority<any> | undefined;
    // biome-ignore lint/suspicious/noExplicitAny: likewise
    readonly wit: Authority<any> | undefined;
    readonly roots: Pick<UpstreamRoots, 'ensureTainted' | 'ensureRevoked' | 'areFollowed'>;
    keepFresh(): Promise<void>;
  };
  readonly holdings: Holdings;
  readonly trustDomain: TrustDomain;
  /** Milliseconds after which whoever follows the bundle has fetched it again. */
  readonly refreshHint: number;
  /** Milliseconds that a JWT-SVID lives where its entry says nothing. */
  jwtLifetime(): number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** How a rotation stands, for whoever asks. */
export interface Standing {
  readonly rotation: Rotation;
  /** The journals of its authorities. */
  readonly slots: ReadonlyMap<string, Slots>;
  readonly coverage: Coverage;
  readonly federated: readonly TrustDomain[];
  /** Why it does not go on; undefined when it may, or has ended. */
  readonly waitingFor: string | undefined;
}

export interface Conduct {
  start(mode: Mode, kinds: readonly Kind[]): Promise<Standing>;
  /** Goes on with the rotation `id` if nothing stands against it, or regardless. */
  advance(id: string, force: boolean): Promise<Standing>;
  /** Throws `thing/missing` when there never was one. */
  get(): Promise<Standing>;
  /** Does this server's part, until the signal. */
  run(signal: AbortSignal): Promise<void>;
}

const documentName = 'rotation';
/** Milliseconds between two looks at the document: while nothing is under way, and while something is. */
const lookEvery = { idle: 5_000, active: 500 } as const;
/** In an emergency, agents that can be reached have this long to take up the new authorities before they sign, milliseconds. */
const emergencyWait = 10_000;
const mostTries = 50;

export function conduct(ports: ConductPorts): Conduct {
  const { store, world, authorities, clock, random, log } = ports;
  const { journal } = store;
  const stands = sharedStands(journal, ports.holdings, authorities.x509.document.split('@')[1]!);

  async function read(): Promise<{ version: number; rotation: Rotation | undefined }> {
    const found = await journal.get(documentName);
    return { version: found?.version ?? 0, rotation: readRotation(found?.text) };
  }

  /** Changes the document; `change` gives undefined to leave it as it is. Gives what is stored then. */
  async function edit(change: (before: Rotation | undefined) => Rotation | undefined): Promise<Rotation | undefined> {
    for (let tries = 0; tries < mostTries; tries++) {
      const { version, rotation } = await read();
      const next = change(rotation);
      if (next === undefined) return rotation;
      if (await journal.put(documentName, JSON.stringify(next), version)) return next;
    }
    throw new Fault('system/failed', 'the rotation could not be changed: other servers kept changing it first');
  }

  const held = (document: string) =>
    [authorities.x509, authorities.jwt, authorities.wit].find((authority) => authority?.document === document);

  /** Does what the document asks of the authorities of this server, one after the other. */
  async function doOwnPart(rotation: Rotation): Promise<void> {
    for (const [document, part] of Object.entries(rotation.parts)) {
      const authority = held(document);
      if (authority === undefined || part.leftOut) continue;
      await authority.catchUp();
      const now = () => stepsDone(rotation, part, authority.state());
      const upTo = steps.indexOf(rotation.step);
      if (now() === 0) {
        // What was prepared before an emergency may be known to whoever the emergency is about.
        const next = await authority.prepare(({ id }) => rotation.mode === 'planned' || id !== part.before);
        await edit((before) =>
          before?.id === rotation.id && before.parts[document]?.next !== next.id
            ? withNext(before, document, next, clock.now())
            : undefined,
        );
        // What the others prepared counts too from here on: gone on with at the next look.
        continue;
      }
      const doStep = async (step: () => Promise<unknown>): Promise<void> => {
        const before = now();
        await step().catch(async (error: unknown) => {
          // Of an authority that is shared, another server may have done the step meanwhile.
          await authority.catchUp();
          if (now() === before) throw error;
        });
      };
      if (upTo >= 1 && now() === 1) await doStep(() => authority.activate(part.next as string));
      if (upTo >= 2 && now() === 2) {
        await doStep(() =>
          part.fromRoot === undefined ? authority.taint(part.from) : authorities.roots.ensureTainted(part.fromRoot),
        );
        await authorities.keepFresh();
      }
      if (upTo >= 3 && now() === 3) {
        await doStep(() =>
          part.fromRoot === undefined ? authority.revoke(part.from) : authorities.roots.ensureRevoked(part.fromRoot),
        );
      }
    }
  }

  async function slotsOf(journal: Journal): Promise<Map<string, Slots>> {
    const found = await Promise.all(authorityKinds.map((kind) => journal.list(`${kind}@`)));
    return new Map(found.flat().map(({ name, text }) => [name, readSlots(text, name)]));
  }

  const canFederate = async (): Promise<TrustDomain[]> => {
    const domains = new Set((await store.federation.list()).map(({ trustDomain }) => trustDomain));
    for (const domain of world.bundles.keys()) if (domain !== ports.trustDomain) domains.add(domain);
    return [...domains].sort();
  };

  async function standing(rotation: Rotation): Promise<Standing> {
    const slots = await slotsOf(journal);
    const coverage = countCoverage(rotation, world.nodes.values(), await stands.read(rotation), clock.now());
    const federated = await canFederate();
    return { rotation, slots, coverage, federated, waitingFor: waitingFor(rotation, slots, coverage, federated) };
  }

  function waitingFor(
    rotation: Rotation,
    slots: ReadonlyMap<string, Slots>,
    coverage: Coverage,
    federated: readonly TrustDomain[],
  ): string | undefined {
    const { step, mode, parts } = rotation;
    if (step === 'done') return undefined;
    const late = Object.entries(parts).filter(([document, part]) => !hasDone(rotation, part, slots.get(document)));
    if (late.length > 0) {
      const names = late.map(([document]) => document).join(', ');
      return `${late.length} of ${Object.keys(parts).length} authorities have not done the step "${step}": ${names}`;
    }
    const waited = clock.now() - rotation.stepAt;
    if (step === 'prepare') {
      if (mode === 'emergency' && waited < emergencyWait && coverage.behind > 0)
        return `${coverage.covered} of ${coverage.agents} agents hold the new authorities; those that can be reached have ${Math.ceil((emergencyWait - waited) / 1000)} s`;
      if (mode === 'emergency') return stuck(rotation);
      if (coverage.uncovered.length > 0)
        return `${coverage.covered} of ${coverage.agents} agents hold the new authorities`;
      const left = ports.refreshHint - waited;
      if (federated.length > 0 && left > 0)
        return `federated trust domains have ${Math.ceil(left / 1000)} s to fetch the bundle: ${federated.join(', ')}`;
    }
    if (step === 'taint') {
      if (coverage.uncovered.length > 0)
        return `${coverage.covered} of ${coverage.agents} agents have left the old authorities`;
      const kinds = new Set(Object.keys(parts).map(kindOf));
      const since = clock.now() - rotation.activatedAt;
      // Of those that share a key, the others learn that it is replaced from the database.
      const late = Object.keys(parts).some((document) => holderOf(document) === sharedHolder) ? knownWithin : 0;
      if (since < late) return `all servers have ${Math.ceil((late - since) / 1000)} s to sign with the new shared key`;
      const left = mode === 'planned' && kinds.has('jwt') ? longestToken() + late - since : 0;
      if (left > 0) return `JWT-SVIDs that the old key signed are in use for ${Math.ceil(left / 1000)} s`;
    }
    return undefined;
  }

  /** Replacing what leads to the same root again takes nothing from whoever has the old keys. */
  function stuck(rotation: Rotation): string | undefined {
    const stay = wanted(rotation).filter((part) => staysBelow(rotation, part));
    if (stay.length === 0) return undefined;
    const roots = [...new Set(stay.map(({ fromRoot }) => fromRoot))].join(' and ');
    const advice = rotation.keepsRoots
      ? 'rotate the authority of the server above, which this one follows'
      : 'have the upstream authority sign below another root, then give the command again';
    return `${stay.length} of ${Object.keys(rotation.parts).length} authorities would leave root ${roots} in use, and with it all that was signed below it; ${advice}`;
  }

  function longestToken(): number {
    let most = ports.jwtLifetime();
    for (const { jwtSvidTtl } of world.entries.values()) most = Math.max(most, jwtSvidTtl * 1000);
    return most;
  }

  /** This server's part, and what its agents hold, as the document asks now. */
  async function takePart(): Promise<Rotation | undefined> {
    let { rotation } = await read();
    if (rotation === undefined || rotation.step === 'done') return rotation;
    await doOwnPart(rotation);
    ({ rotation } = await read());
    if (rotation !== undefined) await stands.share(rotation);
    return rotation;
  }

  // One at a time: the loop, and whoever asks.
  let turn: Promise<unknown> = Promise.resolve();
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = turn.then(work);
    turn = done.catch(() => {});
    return done;
  }

  const need = (rotation: Rotation | undefined): Rotation => {
    if (rotation !== undefined) return rotation;
    throw new Fault('thing/missing', 'no authority was ever rotated here', { hint: 'Start a rotation first.' });
  };

  return {
    start: (mode, kinds) =>
      inTurn(async () => {
        const slots = await slotsOf(journal);
        const rotation = await edit((before) => {
          if (before !== undefined && before.step !== 'done') {
            const same = kinds.length === 0 || sameKinds(before, kinds);
            if (!same) throw otherKinds(before, kinds);
            // What is under way is gone on with; it only ever becomes more urgent.
            const urgent = mode === 'emergency' && before.mode === 'planned' ? { ...before, mode } : before;
            const next = preparedAgain(urgent);
            return next === before ? undefined : next;
          }
          const active: Record<string, Slots> = {};
          for (const [document, held] of slots) {
            const wanted = kinds.length === 0 || kinds.includes(kindOf(document));
            // What has expired signs nothing and is trusted by nobody; its server makes a new one when it comes back.
            if (wanted && held.active && held.active.notAfter > clock.now()) active[document] = held;
          }
          return begin(random.uuid(), mode, active, clock.now(), authorities.roots.areFollowed);
        });
        log.warn({ rotation: rotation?.id, mode }, 'rotation of authorities');
        return standing(need(await takePart()));
      }),
    advance: (id, force) =>
      inTurn(async () => {
        const now = await standing(need(await takePart()));
        const { rotation } = now;
        if (rotation.id !== id)
          throw new Fault('state/refused', `rotation ${quote(id)} is not the latest one`, {
            hint: `The latest is ${rotation.id}.`,
          });
        if (rotation.step === 'done' || (now.waitingFor !== undefined && !force)) return now;
        const leftOut = Object.entries(rotation.parts)
          .filter(([document, part]) => !hasDone(rotation, part, now.slots.get(document)))
          .map(([document]) => document);
        await edit((before) =>
          // Another command may have taken the step meanwhile; and what was counted must be what is meant.
          before !== undefined && before.step === rotation.step && goalOf(before) === goalOf(rotation)
            ? advanced(before, clock.now(), now.waitingFor !== undefined, leftOut)
            : undefined,
        );
        return standing(need(await takePart()));
      }),
    get: () => inTurn(async () => standing(need((await read()).rotation))),
    async run(signal) {
      while (!signal.aborted) {
        const rotation = await inTurn(takePart).catch((error: unknown) => {
          log.error({ error }, 'rotation of authorities not gone on with; it is tried again');
          return undefined;
        });
        ports.holdings.keep(world.nodes);
        const idle = rotation === undefined || rotation.step === 'done';
        await sleep(clock, idle ? lookEvery.idle : lookEvery.active, signal);
      }
    },
  };
}

const sameKinds = (rotation: Rotation, kinds: readonly Kind[]): boolean =>
  Object.keys(rotation.parts).every((document) => kinds.includes(kindOf(document)));

function otherKinds(before: Rotation, kinds: readonly Kind[]): Fault {
  const under = [...new Set(Object.keys(before.parts).map(kindOf))].join(' and ');
  return new Fault(
    'state/refused',
    `a rotation of ${under} is under way, so none of ${kinds.join(' and ')} can begin`,
    {
      hint: 'Finish that one first: ask for the same kinds.',
    },
  );
}
