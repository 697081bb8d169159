/**
 * A pod as somebody whose identities are asked for: what is found of it is looked at again while anybody follows it, since
 * its labels may change and it may go. Its UID is held from the first look on: another pod of the same name is another.
 */
import { Fault } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import { type Subject, shifting } from '../api/on-behalf.ts';
import type { Cache } from '../cache.ts';
import type { Pod } from '../workload/pods.ts';
import { podNamed, type WatchedPods } from '../workload/watched-pods.ts';
import { type PodReference, referenceText, workloadInfo } from './reference.ts';

export interface PodPorts {
  readonly cache: Cache;
  readonly clock: Clock;
  readonly pods: WatchedPods;
}

/** Throws `thing/missing` with WORKLOAD_NOT_FOUND, or what keeps kubelet from telling. */
export async function podSubject(
  reference: PodReference,
  ports: PodPorts,
  signal: AbortSignal,
): Promise<Subject & { readonly pod: Pod }> {
  const { cache, clock, pods } = ports;
  const found = podNamed(await pods.list(signal), reference);
  if (found === undefined) throw gone(reference, 'this node has no such pod');
  let selectors = found.selectors;
  const entitled = shifting(cache.identities(selectors));

  /** Takes in the last list. Throws when the pod is not on it, or the list is too old. */
  const check = (): void => {
    const { pods: last, at } = pods.latest!;
    if (clock.now() - at > pods.validFor) {
      throw new Fault(
        'peer/unavailable',
        `kubelet has not said for ${pods.validFor} ms whether the pod is still there`,
        {
          hint: 'Try again; the log of the agent says why.',
        },
      );
    }
    const pod = last.byUid.get(found.uid);
    if (pod === undefined) throw gone(reference, 'it is no longer on this node');
    if (pod.selectors.join('\n') === selectors.join('\n')) return;
    selectors = pod.selectors;
    entitled.set(cache.identities(selectors));
  };

  return {
    pod: found,
    get identities() {
      return entitled.now;
    },
    check,
    // Whoever is woken checks.
    wakes: [entitled.wakes, pods.follow],
    close() {},
  };
}

const gone = (reference: PodReference, why: string): Fault =>
  new Fault('thing/missing', `${referenceText(reference)} is not found: ${why}`, {
    info: workloadInfo('WORKLOAD_NOT_FOUND', reference),
    hint: 'Stop using what was handed out for it.',
  });
