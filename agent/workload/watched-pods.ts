/**
 * The pods of this node for those who refer to them by name: found when they are asked for, and looked at again every few
 * seconds while anybody follows one. All who follow share one list.
 */
import type { Clock } from '../../src/run/clock.ts';
import type { PodList } from './pod-list.ts';
import type { Pod, Pods } from './pods.ts';

/** By its key, by its UID, or by both, which then have to agree. */
export interface PodName {
  readonly key?: { readonly namespace: string; readonly name: string };
  readonly uid?: string;
}

export interface WatchedPods {
  /** The pods as they are listed now. Throws what keeps it from doing so. */
  list(signal: AbortSignal): Promise<Pods>;
  /** The last list, and when it came (Unix ms). */
  readonly latest: { readonly pods: Pods; readonly at: number } | undefined;
  /** Milliseconds for which what was found of a pod counts while there is no new list. */
  readonly validFor: number;
  /** Calls `told` after each look, also one that failed, until the returned function is called. */
  follow(told: () => void): () => void;
}

/** Milliseconds between two looks. */
const lookEvery = 5_000;

/** @param failed told of each look that failed */
export function watchedPods(
  node: PodList,
  clock: Clock,
  validFor: number,
  failed: (error: unknown) => void,
): WatchedPods {
  const followers = new Set<() => void>();
  let latest: WatchedPods['latest'];
  let cancel = (): void => {};
  let looking = false;

  const list = async (signal: AbortSignal): Promise<Pods> => {
    const pods = await node.pods(signal);
    latest = { pods, at: clock.now() };
    return pods;
  };
  const look = async (): Promise<void> => {
    looking = true;
    // The deadline of a list ends a look that hangs.
    await list(new AbortController().signal).catch(failed);
    looking = false;
    for (const told of [...followers]) told();
    lookLater();
  };
  const lookLater = (): void => {
    cancel();
    if (followers.size > 0 && !looking) cancel = clock.after(lookEvery, () => void look());
  };

  return {
    list,
    validFor,
    get latest() {
      return latest;
    },
    follow(told) {
      const one = (): void => told();
      followers.add(one);
      if (followers.size === 1) lookLater();
      return () => {
        followers.delete(one);
        if (followers.size === 0) cancel();
      };
    },
  };
}

/** The pod that is meant; undefined when there is none, or one with another UID. */
export function podNamed({ byUid }: Pods, { key, uid }: PodName): Pod | undefined {
  if (key === undefined) return uid === undefined ? undefined : byUid.get(uid);
  const found = [...byUid.values()].find(({ namespace, name }) => namespace === key.namespace && name === key.name);
  return uid === undefined || found?.uid === uid ? found : undefined;
}
