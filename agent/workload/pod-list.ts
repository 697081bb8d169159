/**
 * A list of the pods of this node, from whoever has it (kubelet.ts, api-server.ts). One list serves everybody who asks at
 * the same time and for a while afterwards.
 */
import { Fault } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import { type Address, getJson, type JsonReply, textOf } from './get-json.ts';
import { type Pods, readPods } from './pods.ts';

/** Where a list is got. */
export interface PodSource {
  /** Who is asked, for messages: `kubelet`. */
  readonly name: string;
  readonly path: string;
  /** What to do about a refusal. */
  readonly rights: string;
  address(): Address;
  /** Read for each list: Kubernetes changes tokens in place. */
  headers(): Record<string, string>;
  /** The last list failed: what was read for it may be out of date. */
  forget(): void;
}

export interface PodList {
  readonly name: string;
  /**
   * The pods as of `age` milliseconds ago at most, half a poll unless told. Rejects with the signal's reason when it is
   * aborted.
   */
  pods(signal: AbortSignal, age?: number): Promise<Pods>;
}

/** Milliseconds for one list. */
const patience = 10_000;
/** Bytes: some hundred pods with everything that Kubernetes writes into them. */
const longest = 64 * 1024 * 1024;

/** @param usualAge milliseconds */
export function podList(source: PodSource, usualAge: number, clock: Clock): PodList {
  let latest: { readonly at: number; readonly pods: Pods } | undefined;
  let underWay: { readonly list: Promise<Pods>; readonly stop: AbortController; waiting: number } | undefined;

  const list = async (signal: AbortSignal): Promise<Pods> => {
    try {
      const { name, path } = source;
      const headers = source.headers();
      const reply = await getJson(name, source.address(), { path, headers, signal, most: longest });
      requireList(reply, source);
      const pods = readPods(reply.body);
      latest = { at: clock.now(), pods };
      return pods;
    } catch (error) {
      source.forget();
      throw error;
    }
  };

  const begin = (): NonNullable<typeof underWay> => {
    const stop = new AbortController();
    const late = new Fault('peer/unavailable', `${source.name} gave no list of pods within ${patience} ms`);
    const cancel = clock.after(patience, () => stop.abort(late));
    const one = { list: list(stop.signal), stop, waiting: 0 };
    const end = (): void => {
      cancel();
      if (underWay === one) underWay = undefined;
    };
    one.list.then(end, end);
    return one;
  };

  return {
    name: source.name,
    async pods(signal, age = usualAge) {
      signal.throwIfAborted();
      const now = clock.now();
      if (latest !== undefined && now >= latest.at && now - latest.at < age) return latest.pods;
      underWay ??= begin();
      const one = underWay;
      one.waiting += 1;
      const { promise: aborted, reject } = Promise.withResolvers<never>();
      const onAbort = (): void => reject(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        return await Promise.race([one.list, aborted]);
      } finally {
        signal.removeEventListener('abort', onAbort);
        one.waiting -= 1;
        if (one.waiting === 0) {
          if (underWay === one) underWay = undefined;
          one.stop.abort(signal.reason);
        }
      }
    },
  };
}

function requireList({ status, body }: JsonReply, { name, rights }: PodSource): void {
  if (status === 401 || status === 403)
    throw new Fault('peer/failed', `${name} refuses to list its pods to the agent (${status})`, { hint: rights });
  if (status !== 200) throw new Fault('peer/failed', `${name} answers ${status} for its pods`);
  if (textOf(body, 'kind') !== 'PodList')
    throw new Fault('peer/failed', `${name} answers with something else than a PodList`);
}
