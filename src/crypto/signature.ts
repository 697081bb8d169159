/** The signatures we accept on certificates, requests and revocation lists, as a table; any other verifies nothing. */
import { constants, type KeyObject, verify } from 'node:crypto';
import { ecdsaWith, type Hash, type KeyShape, keyTypes, rsaLimits, rsaWith } from './algorithms.ts';
import { context, integer, nothing, objectId, sequence } from './der.ts';
import { type Place, workAt } from './workplace.ts';

const hashes = { sha256: '2.16.840.1.101.3.4.2.1', sha384: '2.16.840.1.101.3.4.2.2', sha512: '2.16.840.1.101.3.4.2.3' };
const saltLengths = { sha256: 32, sha384: 48, sha512: 64 };

function pssWith(hash: Hash): Buffer {
  const digest = sequence(objectId(hashes[hash]), nothing());
  const mask = sequence(objectId('1.2.840.113549.1.1.8'), digest);
  const parameters = [context(0, [digest]), context(1, [mask]), context(2, [integer(saltLengths[hash])])];
  return sequence(objectId('1.2.840.113549.1.1.10'), sequence(...parameters));
}

interface SignatureFacts {
  readonly kind: KeyShape['kind'];
  /** Of ML-DSA. */
  readonly set?: '44' | '65' | '87';
  readonly hash: Hash | null;
  readonly pss?: true;
}
const signatureAlgorithms = new Map<string, SignatureFacts>(
  (
    [
      [ecdsaWith(2), { kind: 'ec', hash: 'sha256' }],
      [ecdsaWith(3), { kind: 'ec', hash: 'sha384' }],
      [ecdsaWith(4), { kind: 'ec', hash: 'sha512' }],
      [rsaWith(11), { kind: 'rsa', hash: 'sha256' }],
      [rsaWith(12), { kind: 'rsa', hash: 'sha384' }],
      [rsaWith(13), { kind: 'rsa', hash: 'sha512' }],
      [pssWith('sha256'), { kind: 'rsa', hash: 'sha256', pss: true }],
      [pssWith('sha384'), { kind: 'rsa', hash: 'sha384', pss: true }],
      [pssWith('sha512'), { kind: 'rsa', hash: 'sha512', pss: true }],
      [sequence(objectId('1.3.101.112')), { kind: 'ed25519', hash: null }],
      [keyTypes['ml-dsa-44'].signatureAlgorithm, { kind: 'ml-dsa', hash: null, set: '44' }],
      [keyTypes['ml-dsa-65'].signatureAlgorithm, { kind: 'ml-dsa', hash: null, set: '65' }],
      [keyTypes['ml-dsa-87'].signatureAlgorithm, { kind: 'ml-dsa', hash: null, set: '87' }],
    ] as const
  ).map(([algorithm, facts]) => [algorithm.toString('latin1'), facts]),
);

/**
 * Whether `signature` over `data` was made by `key`. False for an algorithm outside the table, for one that does not fit
 * the key, and for RSA keys outside `rsaLimits` or above `mostRsaBits`.
 * @param algorithm AlgorithmIdentifier, DER
 */
export function verifySignature(
  algorithm: Buffer,
  shape: KeyShape,
  key: KeyObject,
  data: Buffer,
  signature: Buffer,
  mostRsaBits: number = rsaLimits.most,
): boolean {
  return verifySignatureAt('here', algorithm, shape, key, data, signature, mostRsaBits) as boolean;
}

/** As `verifySignature`, at `place`. @param key a text is a PEM block of SubjectPublicKeyInfo, read when it is used */
export function verifySignatureAt(
  place: Place,
  algorithm: Buffer,
  shape: KeyShape,
  key: KeyObject | string,
  data: Buffer,
  signature: Buffer,
  mostRsaBits: number = rsaLimits.most,
): boolean | Promise<boolean> {
  const facts = factsOf(algorithm, shape, mostRsaBits);
  if (facts === undefined) return false;
  const asked = verifyingKey(facts, key);
  try {
    const outcome = workAt<boolean>(
      place,
      () => verify(facts.hash, data, asked, signature),
      (done) => verify(facts.hash, data, asked, signature, done),
    );
    return outcome instanceof Promise ? outcome.catch(() => false) : outcome;
  } catch {
    return false;
  }
}

function factsOf(algorithm: Buffer, shape: KeyShape, mostRsaBits: number): SignatureFacts | undefined {
  const facts = signatureAlgorithms.get(algorithm.toString('latin1'));
  if (facts === undefined || facts.kind !== shape.kind) return undefined;
  if (shape.kind === 'rsa' && (shape.bits < rsaLimits.least || shape.bits > mostRsaBits)) return undefined;
  if (shape.kind === 'ml-dsa' && facts.set !== shape.set) return undefined;
  return facts;
}

function verifyingKey(facts: SignatureFacts, key: KeyObject | string) {
  if (!facts.pss) return key;
  const padded = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: saltLengths[facts.hash ?? 'sha256'] };
  return typeof key === 'string' ? { key, ...padded } : { key, ...padded };
}
