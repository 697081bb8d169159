/**
 * What a broker means by a workload (SPIFFE Broker API §3.1): read once into a value, or refused with the reason that the
 * standard gives such a refusal. Nothing here says that the workload exists.
 */
import { type ErrorInfo, Fault, quote } from '../../src/errors.ts';
import { messageCodec } from '../../src/rpc/load.ts';

/** A process of this node. */
export interface ProcessReference {
  readonly kind: 'process';
  readonly pid: number;
}

/** A pod, by its key, by its UID, or by both. */
export interface PodReference {
  readonly kind: 'pod';
  readonly key?: { readonly namespace: string; readonly name: string };
  readonly uid?: string;
}

export type Reference = ProcessReference | PodReference;

/** spiffe.broker.WorkloadReference. */
export interface WireReference {
  readonly reference: { readonly type_url: string; readonly value: Buffer } | null;
}

interface WireObject {
  readonly type: { readonly plural: string; readonly group: string } | null;
  readonly key: { readonly namespace: string; readonly name: string } | null;
  readonly uid: string;
}

/** Every type that is understood, by its full name: there is none of our own (§3.1.4). */
const types: Readonly<Record<string, (message: never) => Reference>> = {
  'spiffe.broker.WorkloadPIDReference': ({ pid }: { pid: number }): Reference => {
    if (pid <= 0) throw invalid(`process id ${pid} is not valid: expected a number above 0`);
    return { kind: 'process', pid };
  },
  'spiffe.broker.KubernetesObjectReference': readObject,
};
export const referenceTypes: readonly string[] = Object.keys(types);

/** Reads the reference of a request. Throws `input/invalid` with WORKLOAD_REFERENCE_INVALID. */
export function readReference(wire: WireReference | null): Reference {
  const any = wire?.reference;
  if (!any || any.type_url === '') {
    throw invalid('the request names no workload: expected a reference', `Give one of ${referenceTypes.join(', ')}.`);
  }
  const name = any.type_url.slice(any.type_url.lastIndexOf('/') + 1);
  if (!Object.hasOwn(types, name)) {
    throw invalid(
      `a reference of type ${quote(any.type_url)} is not understood here`,
      `Give one of ${referenceTypes.join(', ')}.`,
    );
  }
  let message: never;
  try {
    message = messageCodec(name).decode(any.value) as never;
  } catch {
    throw invalid(`the reference is not a ${name}: its bytes cannot be read`);
  }
  return types[name]!(message);
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** Names of Kubernetes: of a namespace a DNS label, of a pod a DNS name. */
const label = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const name = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/;

function readObject({ type, key, uid }: WireObject): Reference {
  const { plural = '', group = '' } = type ?? {};
  if (plural === '' || group === '') {
    throw invalid(
      `the kind of the Kubernetes object is not whole: plural ${quote(plural)}, group ${quote(group)}`,
      'For a pod they are "pods" and "core".',
    );
  }
  if (plural !== 'pods' || group !== 'core') {
    throw invalid(
      `Kubernetes objects of kind ${quote(plural)} in group ${quote(group)} are not resolved here`,
      'This agent knows the pods of its node: "pods" in "core".',
    );
  }
  if (key === null && uid === '') throw invalid('the Kubernetes object is named by neither its key nor its UID');
  if (key !== null && !label.test(key.namespace))
    throw invalid(`${quote(key.namespace)} is not a namespace, which the key of a pod has to have`);
  if (key !== null && !name.test(key.name)) throw invalid(`${quote(key.name)} is not the name of a pod`);
  if (uid !== '' && !uuid.test(uid)) throw invalid(`${quote(uid)} is not a UID: expected a UUID`);
  return {
    kind: 'pod',
    ...(key === null ? {} : { key: { namespace: key.namespace, name: key.name } }),
    ...(uid === '' ? {} : { uid: uid.toLowerCase() }),
  };
}

/** In words, for messages. */
export function referenceText(reference: Reference): string {
  if (reference.kind === 'process') return `process ${reference.pid}`;
  const { key, uid } = reference;
  if (key === undefined) return `the pod with UID ${uid}`;
  return `pod ${key.namespace}/${key.name}${uid === undefined ? '' : ` with UID ${uid}`}`;
}

export type WorkloadReason = 'WORKLOAD_REFERENCE_INVALID' | 'WORKLOAD_NOT_FOUND' | 'WORKLOAD_NOT_ENTITLED';

/** The detail of a refusal (§4.8), with what the broker itself has said. */
export function workloadInfo(reason: WorkloadReason, reference?: Reference): ErrorInfo {
  const told: Record<string, string> = {};
  if (reference?.kind === 'process') told['pid'] = String(reference.pid);
  if (reference?.kind === 'pod') {
    if (reference.key !== undefined) Object.assign(told, reference.key);
    if (reference.uid !== undefined) told['uid'] = reference.uid;
  }
  return { reason, domain: 'spiffe.io', metadata: told };
}

function invalid(message: string, hint?: string): Fault {
  const info = workloadInfo('WORKLOAD_REFERENCE_INVALID');
  return new Fault('input/invalid', message, { info, ...(hint === undefined ? {} : { hint }) });
}
