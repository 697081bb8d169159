/**
 * Calls to the upstream authority, so that one that is down, slow or wrong costs only what needs it: a deadline on every
 * call, quick refusals with backoff after a failure, one log line when it begins to fail and one when it works again, and
 * a word for the health check.
 */
import { Fault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import { type Backoff, backoffDelay } from '../../src/run/backoff.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { JwtAuthority } from '../../src/spiffe/bundle.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { checkMinted, type Minted, type MintedPath } from './minted.ts';
import type { KeyKind, Upstream, UpstreamState } from './upstream.ts';

/** An upstream that throws Faults alone: `upstream/unavailable` and `upstream/refused`. */
export interface SteadyUpstream {
  readonly name: string;
  readonly at: string;
  /** See `Upstream.isLocal`. */
  readonly isLocal: boolean;
  /** Whether keys of tokens go to the whole trust domain through it. */
  readonly publishes: boolean;
  /**
   * @param ttl milliseconds
   * @param distrusted what is known against a root, by its id
   */
  mint(
    csr: Buffer,
    spki: Buffer,
    ttl: number,
    distrusted: (rootId: string) => string | undefined,
  ): Promise<{ minted: Minted; path: MintedPath }>;
  /** Undefined where only `mint` tells. */
  state(): Promise<UpstreamState | undefined>;
  /** Undefined where the upstream takes no keys of that kind, which is told once. */
  publish(kind: KeyKind, key: JwtAuthority): Promise<readonly JwtAuthority[] | undefined>;
  /** Somebody waits: the next call is made at once, whatever failed before. */
  hurry(): void;
  /** Throws what went wrong last, until it works again. */
  check(): void;
  close(): Promise<void>;
}

/** Milliseconds: some authorities take their time to sign. */
const patience = { mint: 60_000, state: 10_000, publish: 10_000 } as const;
type Call = keyof typeof patience;
const doing: Readonly<Record<Call, string>> = {
  mint: 'signing our certificate authority',
  state: 'telling its roots',
  publish: 'publishing a key',
};
const backoff: Backoff = { first: 1_000, most: 60_000, factor: 2 };
/** An upstream that goes on failing is told of again this often, milliseconds. */
const remindEvery = 3_600_000;

interface Failing {
  readonly fault: Fault;
  readonly failures: number;
  readonly until: number;
  readonly told: number;
}

export function steadyUpstream(
  upstream: Upstream,
  trustDomain: TrustDomain,
  ports: { readonly clock: Clock; readonly random: Random; readonly log: Log },
): SteadyUpstream {
  const { clock, random, log } = ports;
  const ended = new AbortController();
  const failing = new Map<Call, Failing>();
  const untaken = new Set<KeyKind>();

  async function call<T>(what: Call, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const before = failing.get(what);
    if (before !== undefined && clock.now() < before.until) throw before.fault;
    try {
      const result = await inTime(what, work);
      failing.delete(what);
      if (before !== undefined) log.info({ upstream: upstream.name, call: what }, 'upstream authority works again');
      return result;
    } catch (error) {
      throw failed(what, before, faultOf(error, what));
    }
  }

  async function inTime<T>(what: Call, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const late = new AbortController();
    const { promise: deadline, reject } = Promise.withResolvers<never>();
    deadline.catch(() => {});
    const end = (why: string): void => {
      const fault = unavailable(why);
      late.abort(fault);
      reject(fault);
    };
    const cancel = clock.after(patience[what], () => end(`did not answer in ${patience[what] / 1000} s`));
    const onEnd = (): void => end('was left, since the server stops');
    ended.signal.addEventListener('abort', onEnd, { once: true });
    try {
      if (ended.signal.aborted) onEnd();
      return await Promise.race([deadline, work(late.signal)]);
    } finally {
      cancel();
      ended.signal.removeEventListener('abort', onEnd);
    }
  }

  function failed(what: Call, before: Failing | undefined, fault: Fault): Fault {
    if (ended.signal.aborted) return fault;
    const now = clock.now();
    const failures = (before?.failures ?? 0) + 1;
    const isNews = before === undefined || before.fault.message !== fault.message || now - before.told >= remindEvery;
    if (isNews) {
      const fields = { upstream: upstream.name, call: what, code: fault.code, message: fault.message };
      log.warn({ ...fields, ...(fault.detail && { detail: fault.detail }) }, 'upstream authority cannot be used');
    }
    failing.set(what, {
      fault,
      failures,
      until: upstream.isLocal ? now : now + backoffDelay(backoff, failures, random.unit()),
      told: isNews ? now : before.told,
    });
    return fault;
  }

  return {
    name: upstream.name,
    at: upstream.at ?? '',
    isLocal: upstream.isLocal === true,
    publishes: upstream.publish !== undefined,
    mint: (csr, spki, ttl, distrusted) =>
      call('mint', async (signal) => {
        const minted = await upstream.mint(csr, ttl, signal);
        return { minted, path: checkMinted(minted, { spki, trustDomain, distrusted }, clock.now()) };
      }),
    async state() {
      return upstream.state && call('state', (signal) => upstream.state!(signal));
    },
    publish: (kind, key) =>
      call('publish', async (signal) => {
        if (upstream.publish === undefined) throw new Error(`upstream ${upstream.name} publishes no keys`);
        const all = await upstream.publish(kind, key, signal);
        if (all === undefined && !untaken.has(kind)) {
          untaken.add(kind);
          log.warn(
            { upstream: upstream.name, kind },
            'upstream authority takes no such keys: they are known here and below',
          );
        }
        return all;
      }),
    hurry() {
      for (const [what, one] of failing) failing.set(what, { ...one, until: clock.now() });
    },
    check() {
      for (const { fault } of failing.values()) throw fault;
    },
    async close() {
      ended.abort();
      await upstream.close?.();
    },
  };
}

function unavailable(why: string, detail?: unknown): Fault {
  return new Fault('upstream/unavailable', `the upstream authority ${why}`, {
    hint: 'What was issued goes on working; it is asked again. See that it runs and can be reached.',
    ...(detail !== undefined && { detail: String(detail), cause: detail }),
  });
}

/** Every failure as one of the two codes; what an upstream said for itself stays as it is. */
function faultOf(error: unknown, what: Call): Fault {
  if (!(error instanceof Fault)) return unavailable(`failed at ${doing[what]}; the log of the server says why`, error);
  if (error.code === 'upstream/unavailable' || error.code === 'upstream/refused') return error;
  const { message, hint, detail } = error;
  const isRefusal = error.code === 'config/invalid' || error.code === 'input/invalid' || error.code === 'der/invalid';
  return new Fault(
    isRefusal ? 'upstream/refused' : 'upstream/unavailable',
    `the upstream authority failed at ${doing[what]}: ${message}`,
    { ...(hint && { hint }), ...(detail && { detail }), cause: error },
  );
}
