/**
 * The agent's own standing with its server: new, attested, renewing, evicted. It attests, renews its SVID at half life with
 * a new key each time, and does what the server's refusals say: attest anew where the method allows it, otherwise forget
 * the SVID and stop. What each refusal means is in one table.
 */
import type { KeyType } from '../src/crypto/algorithms.ts';
import { type DenialReason, Fault, quote, Status } from '../src/errors.ts';
import type { Log } from '../src/log.ts';
import { type Backoff, delayAfter } from '../src/run/backoff.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import { type Live, live } from '../src/run/live.ts';
import type { Random } from '../src/run/random.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import { isAgentId, isMemberOf, type SpiffeId, type TrustDomain } from '../src/spiffe/id.ts';
import type { AttestMethod } from './attest/methods.ts';
import type { ServerLink } from './link.ts';
import { requestKey } from './request-key.ts';
import type { NodeRecord } from './state.ts';
import { chainsTo, type HeldSvid, soonerIfTainted, taintedAuthorities, takeSvid } from './svid.ts';
import { why } from './why.ts';

export type NodeState =
  | { readonly kind: 'new' }
  | { readonly kind: 'attested'; readonly node: NodeRecord }
  /** The SVID is still used while the next one is asked for. */
  | { readonly kind: 'renewing'; readonly node: NodeRecord }
  | { readonly kind: 'evicted'; readonly fault: Fault };

export interface Node {
  readonly state: Live<NodeState>;
  /** The SVID in use; undefined before attestation and after eviction. */
  current(): NodeRecord | undefined;
  /**
   * Attests, if there is no usable SVID. Throws what makes it hopeless, or the last failure after a minute; with
   * `mayWait` one failure is enough, and run() goes on trying.
   */
  start(signal: AbortSignal, mayWait: boolean): Promise<void>;
  /** Renews, attests anew and waits, until the signal or eviction (then it throws the reason). */
  run(signal: AbortSignal): Promise<void>;
  /** The server has answered a call made with the SVID from the data directory. */
  proven(): void;
  /** The clock was set, or the machine slept: what is due is looked at anew. */
  clockSet(): void;
}

export interface NodePorts {
  /** Of the agent's own SVID. */
  readonly keyType: KeyType;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly link: ServerLink;
  readonly trustDomain: TrustDomain;
  /** Undefined when none is configured: then only what the data directory holds can be used. */
  readonly method: AttestMethod | undefined;
  readonly availabilityTarget: number | undefined;
  /** What the agent trusts: a taint in it may concern the agent's own SVID. */
  readonly ownBundle: Live<Bundle>;
  /** Keeps a new SVID, with the bundle when one came with it, before it is used. */
  save(node: NodeRecord, bundle: Bundle | undefined): Promise<void>;
  /** Forgets what belonged to the node. */
  forget(): Promise<void>;
}

/** What an agent does when it is refused with a reason (spire.api.types.PermissionDeniedDetails). */
const reactions: Readonly<Record<DenialReason, { anew: boolean; says: string }>> = {
  AGENT_EXPIRED: { anew: true, says: 'its SVID has expired' },
  AGENT_NOT_ATTESTED: { anew: true, says: 'the server does not know this node (it was evicted)' },
  AGENT_NOT_ACTIVE: { anew: true, says: 'its SVID is not the one the server issued last' },
  AGENT_BANNED: { anew: false, says: 'the server has banned this node' },
  AGENT_MUST_REATTEST: { anew: true, says: 'the server wants it to attest anew' },
};

/** Statuses after which attesting once more would bring the same answer. */
const hopeless: ReadonlySet<number> = new Set([
  Status.INVALID_ARGUMENT,
  Status.PERMISSION_DENIED,
  Status.FAILED_PRECONDITION,
  Status.UNIMPLEMENTED,
  Status.UNAUTHENTICATED,
]);

const backoff: Backoff = { first: 1_000, most: 60_000, factor: 1.5 };
/** Milliseconds after which the first attestation gives up. */
const patience = 60_000;
/** An SVID that was said to have expired, and is valid here for more than this, says that the clocks differ. */
const clocksApart = 60_000;
/** An SVID that is valid for less than this is as good as none. */
const leastValidity = 1_000;

export function makeNode(ports: NodePorts, kept: NodeRecord | undefined): Node {
  const { clock, random, log, link, method, trustDomain } = ports;
  const state = live<NodeState>({ kind: 'new' });
  let denial: Fault | undefined;
  let forced = false;
  const handledTaints = new Set<string>();
  let unproven = false;
  let wake: () => void = () => {};

  link.onDenied((fault) => {
    denial ??= fault;
    wake();
  });

  ports.ownBundle.onChange((bundle) => {
    const node = current();
    if (node === undefined) return;
    // Whatever is kept of the bundle is kept beside the SVID.
    ports.save(node, undefined).catch((error: unknown) => log.error(why(error), 'state not written'));
    const fresh = taintedAuthorities(bundle, handledTaints);
    if (fresh.size === 0 || !chainsTo(node.chain, fresh)) return;
    forced = true;
    wake();
  });
  const forceKept = (node: NodeRecord): void => {
    // A taint that came while the agent was being stopped.
    forced = chainsTo(node.chain, taintedAuthorities(ports.ownBundle.value, handledTaints)) || isAhead(node);
  };
  /** It begins later than now: the clock was ahead when it was issued. Nobody will believe it before. */
  const isAhead = ({ notBefore }: NodeRecord): boolean => notBefore > clock.now();

  const current = (): NodeRecord | undefined =>
    state.value.kind === 'attested' || state.value.kind === 'renewing' ? state.value.node : undefined;
  const taken = (chain: readonly Buffer[], key: { pkcs8: Buffer; spki: Buffer }, id?: SpiffeId): HeldSvid => {
    const draw = { unit: random.unit(), availabilityTarget: ports.availabilityTarget };
    return soonerIfTainted(takeSvid(chain, key, draw, id), handledTaints, { now: clock.now(), unit: draw.unit });
  };
  const adopt = (node: NodeRecord): void => {
    denial = undefined;
    forced = false;
    unproven = node === kept;
    link.renewed(node);
    state.set({ kind: 'attested', node });
  };

  const attest = async (signal: AbortSignal): Promise<void> => {
    if (method === undefined) throw noMethod(current() ?? kept);
    const attempt = await method.begin();
    const key = await requestKey(ports.keyType);
    const { node, bundle } = await link.attesting(async (api) => {
      const { chain, reattestable } = await api.attest(
        attempt.data,
        key.csr,
        (challenge) => attempt.answer(challenge),
        signal,
      );
      const svid = taken(chain, key);
      requireAgentId(svid.id, trustDomain);
      return { node: { ...svid, reattestable }, bundle: await api.bundle(trustDomain) };
    });
    await ports.save(node, bundle);
    adopt(node);
    log.info(
      {
        id: node.id,
        method: method.name,
        reattestable: node.reattestable,
        expires: new Date(node.notAfter).toISOString(),
      },
      'agent attested',
    );
  };

  const renew = async (node: NodeRecord): Promise<void> => {
    const key = await requestKey(ports.keyType);
    const chain = await link.call((api) => api.renew(key.csr));
    const svid = taken(chain, key, node.id);
    const renewed: NodeRecord = { ...svid, reattestable: node.reattestable };
    await ports.save(renewed, undefined);
    adopt(renewed);
    log.info({ id: renewed.id, expires: new Date(renewed.notAfter).toISOString() }, 'agent SVID renewed');
  };

  const evict = async (fault: Fault): Promise<never> => {
    log.error(why(fault), 'agent evicted');
    link.renewed(undefined);
    await ports.forget();
    state.set({ kind: 'evicted', fault });
    throw fault;
  };

  /** Waits until renewal is due, or until something happened. */
  const waitFor = async (at: number, signal: AbortSignal): Promise<void> => {
    while (denial === undefined && !forced && clock.now() < at) {
      const woken = new AbortController();
      wake = () => woken.abort(new Error('woken'));
      try {
        await sleep(clock, at - clock.now(), AbortSignal.any([signal, woken.signal]));
      } catch (error) {
        if (signal.aborted) throw error;
      } finally {
        wake = () => {};
      }
    }
  };

  /** Does what the last refusal, or the passing of time, asks for. */
  const step = async (node: NodeRecord | undefined, signal: AbortSignal): Promise<void> => {
    if (denial?.reason === undefined) return node === undefined || node.reattestable ? attest(signal) : renew(node);
    const refused = denial;
    const { anew, says } = reactions[refused.reason!];
    // A data directory from before may meet a server that has forgotten it: then the method given now is tried once.
    const mayAttest = node === undefined || node.reattestable || unproven || refused.reason === 'AGENT_MUST_REATTEST';
    if (
      node !== undefined &&
      !mayAttest &&
      refused.reason === 'AGENT_EXPIRED' &&
      node.notAfter - clock.now() > clocksApart
    ) {
      // Nothing is wrong with it but one of the clocks. What the agent holds is not thrown away for that.
      log.error(why(clocksDiffer(node, clock.now(), refused)), 'agent refused for the time of day');
      await sleep(clock, clocksApart, signal);
      denial = undefined;
      return;
    }
    if (!anew || !mayAttest || method === undefined) await evict(evicted(says, refused));
    log.warn({ reason: refused.reason }, 'agent refused, attesting anew');
    try {
      await attest(signal);
    } catch (error) {
      if (error instanceof Fault && hopeless.has(error.status))
        await evict(evicted(`${says}, and attesting anew was refused: ${error.message}`, refused));
      throw error;
    }
  };

  return {
    state,
    current,
    async start(signal, mayWait) {
      if (kept !== undefined && kept.notAfter - clock.now() >= leastValidity) {
        adopt(kept);
        return forceKept(kept);
      }
      if (kept !== undefined)
        log.warn({ id: kept.id, expired: new Date(kept.notAfter).toISOString() }, 'agent SVID has expired');
      const deadline = clock.now() + patience;
      for (let failures = 1; ; failures++) {
        try {
          return await attest(signal);
        } catch (error) {
          const fault = error instanceof Fault ? error : undefined;
          if (fault?.code === 'config/invalid' || (fault !== undefined && hopeless.has(fault.status))) throw error;
          const delay = delayAfter(fault, backoff, failures, random.unit());
          log.warn(why(error), 'node attestation failed');
          // run() goes on trying.
          if (mayWait) return;
          if (clock.now() + delay > deadline) throw error;
          await sleep(clock, delay, signal);
        }
      }
    },
    async run(signal) {
      let refusal: Fault | undefined;
      for (let failures = 0; ; ) {
        const node = current();
        // However late a server wants to be asked again: twice at least before the SVID ends.
        const most =
          node === undefined ? Number.POSITIVE_INFINITY : Math.max((node.notAfter - clock.now()) / 3, backoff.most);
        if (failures > 0)
          await sleep(clock, Math.min(delayAfter(refusal, backoff, failures, random.unit()), most), signal);
        else if (node !== undefined) await waitFor(node.renewAt, signal);
        signal.throwIfAborted();
        if (node !== undefined) state.set({ kind: 'renewing', node });
        const wasDenied = denial !== undefined;
        try {
          await step(node, signal);
          failures = 0;
        } catch (error) {
          if (state.value.kind === 'evicted' || signal.aborted) throw error;
          if (node === undefined && error instanceof Fault && hopeless.has(error.status)) throw error;
          // Refused while renewing: the next step decides about that at once.
          failures = denial !== undefined && !wasDenied ? 0 : failures + 1;
          refusal = error instanceof Fault ? error : undefined;
          log.warn({ ...why(error), failures }, 'agent SVID not renewed');
          if (node !== undefined && !node.reattestable && clock.now() >= node.notAfter)
            await evict(ranOut(node, error));
        }
      }
    },
    proven() {
      unproven = false;
    },
    clockSet() {
      const node = current();
      if (node !== undefined && isAhead(node)) forced = true;
      wake();
    },
  };
}

function clocksDiffer(node: NodeRecord, now: number, cause: Fault): Fault {
  const [until, here] = [node.notAfter, now].map((ms) => new Date(ms).toISOString());
  return new Fault('state/refused', `the server says that the agent SVID has expired; it is valid until ${until}`, {
    hint: `Set the clocks: the time here is ${here}, and the server's is another.`,
    cause,
  });
}

function ranOut(node: NodeRecord, cause: unknown): Fault {
  return new Fault('state/refused', `the agent SVID of ${quote(node.id)} expired before it could be renewed`, {
    hint: 'Create a new join token and start the agent with it.',
    cause,
  });
}

function evicted(says: string, refused: Fault): Fault {
  return new Fault('caller/denied', `the server refuses this agent: ${says}`, {
    hint:
      refused.reason === 'AGENT_BANNED'
        ? 'An operator has to lift the ban (mutual agent evict) before this node may attest again.'
        : 'Start the agent with a new join token, or with a method that can attest anew.',
    ...(refused.reason === undefined ? {} : { reason: refused.reason }),
    cause: refused,
  });
}

function requireAgentId(id: SpiffeId, trustDomain: TrustDomain): void {
  if (isMemberOf(id, trustDomain) && isAgentId(id)) return;
  throw new Fault(
    'svid/invalid',
    `the server issued ${quote(id)}, which is not the ID of an agent of ${quote(trustDomain)}`,
  );
}

function noMethod(kept: NodeRecord | undefined): Fault {
  const before =
    kept === undefined ? 'the agent is not attested yet' : `the agent SVID of ${quote(kept.id)} has expired`;
  return new Fault('config/invalid', `${before}, and no way to attest is configured`, {
    hint: 'Give a join token (MUTUAL_JOIN_TOKEN or --join-token-file), or configure nodeAttestor.x509pop.',
  });
}
