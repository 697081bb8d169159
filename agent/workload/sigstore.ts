/**
 * `sigstore`: what is signed of the image that a process's container was made from. Which container that is, and which
 * image, another method says with all of its checks (docker, podman, k8s); the selectors are of its type, as SPIRE's are:
 * `docker:image-signature:verified`, `k8s:image-signature-subject:...` and so on. It stands beside those methods, so that a
 * signature that does not hold takes away no other selectors.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../src/run/clock.ts';
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { type ImageSignature, type ImageVerifier, imageVerifier, type SigstoreOptions } from './image-signature.ts';
import type { WorkloadMethod } from './methods.ts';

/** Milliseconds after which signatures are looked for again: some may have come, or been taken away. */
const lookAgain = 60_000;
const longestDeadline = 60_000;
const kept = 1_000;

export function sigstoreMethod(
  options: SigstoreOptions,
  methods: readonly WorkloadMethod[],
  clock: Clock,
  verifier: ImageVerifier = imageVerifier(options),
): WorkloadMethod {
  const asked = methods.flatMap((method) => (method.image === undefined ? [] : [method.image]));
  const knowing = methods.filter((method) => method.image !== undefined);
  /** Fingerprints of processes in containers: only for those does time matter. */
  const contained = new LRUCache<string, true>({ max: kept });
  const fingerprint = (pid: number): string => knowing.map((method) => method.fingerprint(pid)).join('\n');
  return {
    name: 'sigstore',
    deadline: Math.min(longestDeadline, 5_000 + Math.max(0, ...knowing.map(({ deadline }) => deadline))),
    fingerprint(pid) {
      const own = fingerprint(pid);
      return contained.has(own) ? `${own}|${Math.floor(clock.now() / lookAgain)}` : own;
    },
    async attest(pid, signal) {
      const own = fingerprint(pid);
      const found = await Promise.all(asked.map((image) => image(pid, signal)));
      const selectors: Selector[] = [];
      for (const image of found) {
        if (image === undefined) continue;
        contained.set(own, true);
        const all = await Promise.all(image.digests.map((digest) => verifier.verify(digest)));
        selectors.push(...selectorsOf(image.type, all.flat()));
      }
      return selectors;
    },
  };
}

/** Attestations say something of an image that is signed, and nothing by themselves. */
function selectorsOf(type: string, signatures: readonly ImageSignature[]): readonly Selector[] {
  const signed = signatures.filter(({ isAttestation }) => !isAttestation);
  if (signed.length === 0) return [];
  const values = signed.flatMap(({ subject, issuer, value, log }) => [
    ['image-signature-subject', subject],
    ['image-signature-issuer', issuer],
    ['image-signature-value', value],
    ['image-signature-log-id', log?.id ?? ''],
    ['image-signature-log-index', log?.index ?? ''],
    ['image-signature-integrated-time', log?.time ?? ''],
    ['image-signature-signed-entry-timestamp', log?.promise ?? ''],
  ]);
  const told = values.flatMap(([name, value]) => (value === '' ? [] : `${name}:${value}`));
  if (signed.length < signatures.length) told.unshift('image-attestations:verified');
  return [...new Set(['image-signature:verified', ...told])].map((value) => makeSelector(type, value));
}
