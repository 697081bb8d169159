/** The pods of a node as selectors, from a list of them (PodList of Kubernetes' core v1). */
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { fieldsOf, itemsOf, textOf } from './get-json.ts';

export interface Pod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** The uid of the static pod that it stands for, at the API server. */
  readonly mirrorOf?: string;
  readonly selectors: readonly Selector[];
}

export interface PodContainer {
  readonly pod: Pod;
  /** Of the container alone. */
  readonly selectors: readonly Selector[];
  /** Of its image's manifest or index, `sha256:...`. */
  readonly digests: readonly string[];
}

export interface Pods {
  /** By the container's 64 hex digits: containers and init containers that were started. */
  readonly containers: ReadonlyMap<string, PodContainer>;
  readonly byUid: ReadonlyMap<string, Pod>;
}

/** Reads a PodList; what is not one has no pods. Empty values say nothing and give no selector. */
export function readPods(list: unknown): Pods {
  const containers = new Map<string, PodContainer>();
  const byUid = new Map<string, Pod>();
  for (const item of itemsOf(list, 'items')) {
    const status = fieldsOf(item, 'status');
    const running = itemsOf(status, 'containerStatuses');
    const init = itemsOf(status, 'initContainerStatuses');
    const metadata = fieldsOf(item, 'metadata');
    const uid = textOf(metadata, 'uid');
    const [namespace, name] = [textOf(metadata, 'namespace'), textOf(metadata, 'name')];
    const mirrorOf = textOf(fieldsOf(metadata, 'annotations'), 'kubernetes.io/config.mirror');
    const selectors = podSelectors(item, running, init);
    const pod: Pod = { uid, namespace, name, selectors, ...(mirrorOf !== '' && { mirrorOf }) };
    byUid.set(uid, pod);
    for (const one of [...running, ...init]) {
      // `containerd://ID`; empty until the container is started.
      const id = /^[a-z0-9.+-]+:\/\/([0-9a-f]{64})$/.exec(textOf(one, 'containerID'))?.[1];
      if (id === undefined) continue;
      const values = [
        ['container-name', textOf(one, 'name')],
        ...images([one]).map((image) => ['container-image', image]),
      ];
      const digest = /@(sha256:[0-9a-f]{64})$/.exec(textOf(one, 'imageID'))?.[1];
      containers.set(id, { pod, selectors: toSelectors(values), digests: digest === undefined ? [] : [digest] });
    }
  }
  return { containers, byUid };
}

function podSelectors(item: unknown, running: readonly unknown[], init: readonly unknown[]): readonly Selector[] {
  const metadata = fieldsOf(item, 'metadata');
  const spec = fieldsOf(item, 'spec');
  const values = [
    ['ns', textOf(metadata, 'namespace')],
    ['sa', textOf(spec, 'serviceAccountName')],
    ['node-name', textOf(spec, 'nodeName')],
    ['pod-uid', textOf(metadata, 'uid')],
    ['pod-name', textOf(metadata, 'name')],
    ['pod-image-count', String(running.length)],
    ['pod-init-image-count', String(init.length)],
    ...images(running).map((image) => ['pod-image', image]),
    ...images(init).map((image) => ['pod-init-image', image]),
    ...Object.entries(fieldsOf(metadata, 'labels')).map(([name, value]) => ['pod-label', `${name}:${value}`]),
  ];
  for (const owner of itemsOf(metadata, 'ownerReferences')) {
    const kind = textOf(owner, 'kind');
    const [name, uid] = [textOf(owner, 'name'), textOf(owner, 'uid')];
    if (name !== '') values.push(['pod-owner', `${kind}:${name}`]);
    if (uid !== '') values.push(['pod-owner-uid', `${kind}:${uid}`]);
  }
  return toSelectors(values);
}

/** By both names: as the pod asked for it, and with the digest that was pulled. */
function images(statuses: readonly unknown[]): string[] {
  return [...new Set(statuses.flatMap((one) => [textOf(one, 'image'), textOf(one, 'imageID')]))];
}

function toSelectors(values: readonly (readonly string[])[]): readonly Selector[] {
  return values
    .filter(([, value]) => value !== '' && !value!.includes('\0'))
    .map(([name, value]) => makeSelector('k8s', `${name}:${value}`));
}
