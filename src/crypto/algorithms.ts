/**
 * Everything known of the algorithms, in three tables: the keys we make, the signatures we accept on certificates, and
 * the JWS algorithms of JWT-SVIDs. What is not in a table is refused; a key's shape is checked from its bytes before
 * any library is asked to do arithmetic with it.
 */
import { constants, createPublicKey, generateKeyPair, generateKeyPairSync, type KeyObject, verify } from 'node:crypto';
import { promisify } from 'node:util';
import { Fault, quote } from '../errors.ts';
import {
  close,
  context,
  derCursor,
  integer,
  invalid,
  nothing,
  objectId,
  open,
  sequence,
  tag,
  takeBits,
  takeContent,
  takeObjectId,
  takeUnsigned,
} from './der.ts';
import { pemEncode } from './pem.ts';
import { type Place, workAt } from './workplace.ts';

export type KeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048' | 'rsa-4096';
export type JwtAlgorithm = 'RS256' | 'RS384' | 'RS512' | 'ES256' | 'ES384' | 'ES512' | 'PS256' | 'PS384' | 'PS512';
export type Curve = 'P-256' | 'P-384' | 'P-521';
export type Hash = 'sha256' | 'sha384' | 'sha512';

/** What the bytes of a SubjectPublicKeyInfo say of the key. */
export type KeyShape =
  | { readonly kind: 'ec'; readonly curve: Curve }
  | { readonly kind: 'rsa' /** Bits of the modulus. */; readonly bits: number }
  | { readonly kind: 'ed25519' };

/** A key's shape with its bits: what a subject key identifier is computed from. */
export type DescribedKey = KeyShape & { readonly keyBits: Buffer };

const hashes = { sha256: '2.16.840.1.101.3.4.2.1', sha384: '2.16.840.1.101.3.4.2.2', sha512: '2.16.840.1.101.3.4.2.3' };
const saltLengths = { sha256: 32, sha384: 48, sha512: 64 };

const ecdsaWith = (last: number): Buffer => sequence(objectId(`1.2.840.10045.4.3.${last}`));
const rsaWith = (last: number): Buffer => sequence(objectId(`1.2.840.113549.1.1.${last}`), nothing());
function pssWith(hash: Hash): Buffer {
  const digest = sequence(objectId(hashes[hash]), nothing());
  const mask = sequence(objectId('1.2.840.113549.1.1.8'), digest);
  const parameters = [context(0, [digest]), context(1, [mask]), context(2, [integer(saltLengths[hash])])];
  return sequence(objectId('1.2.840.113549.1.1.10'), sequence(...parameters));
}

export interface KeyTypeFacts {
  readonly type: KeyType;
  /** The JWS algorithm its signatures are called. */
  readonly jwa: JwtAlgorithm;
  readonly hash: Hash;
  /** AlgorithmIdentifier of its signatures on certificates, DER. */
  readonly signatureAlgorithm: Buffer;
  readonly shape: KeyShape;
  /** Whether making one takes long enough (tens to thousands of ms) to keep off the event loop. */
  readonly slow: boolean;
}

/** The keys this program makes. RSA signs with PKCS#1 v1.5. */
export const keyTypes: Readonly<Record<KeyType, KeyTypeFacts>> = {
  'ec-p256': {
    type: 'ec-p256',
    jwa: 'ES256',
    hash: 'sha256',
    signatureAlgorithm: ecdsaWith(2),
    shape: { kind: 'ec', curve: 'P-256' },
    slow: false,
  },
  'ec-p384': {
    type: 'ec-p384',
    jwa: 'ES384',
    hash: 'sha384',
    signatureAlgorithm: ecdsaWith(3),
    shape: { kind: 'ec', curve: 'P-384' },
    slow: false,
  },
  'rsa-2048': {
    type: 'rsa-2048',
    jwa: 'RS256',
    hash: 'sha256',
    signatureAlgorithm: rsaWith(11),
    shape: { kind: 'rsa', bits: 2048 },
    slow: true,
  },
  'rsa-4096': {
    type: 'rsa-4096',
    jwa: 'RS256',
    hash: 'sha256',
    signatureAlgorithm: rsaWith(11),
    shape: { kind: 'rsa', bits: 4096 },
    slow: true,
  },
};

/** Reads a key type's name. Throws `input/invalid`. */
export function parseKeyType(text: string): KeyType {
  if (Object.hasOwn(keyTypes, text)) return text as KeyType;
  throw new Fault('input/invalid', `key type ${quote(text)} is not known`, {
    hint: `Use one of ${Object.keys(keyTypes).join(', ')}.`,
  });
}

/** Makes a key pair at once. RSA takes up to seconds: use `generateKeyAside` where others wait. */
export function generateKey(type: KeyType): { privateKey: KeyObject; publicKey: KeyObject } {
  const { shape } = keyTypes[type];
  if (shape.kind === 'rsa') return generateKeyPairSync('rsa', { modulusLength: shape.bits });
  return generateKeyPairSync('ec', { namedCurve: shape.kind === 'ec' ? shape.curve : '' });
}

/** Makes a key pair, the slow kinds on another thread. */
export async function generateKeyAside(type: KeyType): Promise<{ privateKey: KeyObject; publicKey: KeyObject }> {
  const { shape } = keyTypes[type];
  return shape.kind === 'rsa' ? promisify(generateKeyPair)('rsa', { modulusLength: shape.bits }) : generateKey(type);
}

/** The type of a key, private or public. Throws `input/invalid` when it is none of ours. */
export function keyTypeOf(key: KeyObject): KeyType {
  const details = key.asymmetricKeyDetails;
  if (key.asymmetricKeyType === 'ec') {
    if (details?.namedCurve === 'prime256v1') return 'ec-p256';
    if (details?.namedCurve === 'secp384r1') return 'ec-p384';
  }
  if (key.asymmetricKeyType === 'rsa') {
    if (details?.modulusLength === 2048) return 'rsa-2048';
    if (details?.modulusLength === 4096) return 'rsa-4096';
  }
  const found = `${key.asymmetricKeyType ?? key.type} ${details?.namedCurve ?? details?.modulusLength ?? ''}`.trim();
  throw new Fault('input/invalid', `a key of type ${quote(found)} cannot be used`, {
    hint: `Use one of ${Object.keys(keyTypes).join(', ')}.`,
  });
}

/** The type of a key from its shape, or undefined when it is none of ours. */
export function keyTypeOfShape(shape: KeyShape): KeyType | undefined {
  return Object.values(keyTypes).find((facts) => sameShape(facts.shape, shape))?.type;
}

const curves: Readonly<Record<string, { curve: Curve; bytes: number }>> = {
  '1.2.840.10045.3.1.7': { curve: 'P-256', bytes: 32 },
  '1.3.132.0.34': { curve: 'P-384', bytes: 48 },
  '1.3.132.0.35': { curve: 'P-521', bytes: 66 },
};

/**
 * Reads a SubjectPublicKeyInfo strictly, without touching any arithmetic: the curve is known and the point is
 * uncompressed, or the RSA numbers have a sensible size. Throws `der/invalid`.
 * @param what names it in messages
 */
export function describeSpki(spki: Buffer, what = 'public key'): DescribedKey {
  const whole = derCursor(spki, what, 4096);
  const info = open(whole, tag.sequence);
  close(whole);
  const algorithm = open(info, tag.sequence);
  const id = takeObjectId(algorithm);
  if (id === '1.2.840.10045.2.1') {
    const named = takeObjectId(algorithm);
    const known = curves[named];
    if (known === undefined) throw invalid(what, `curve ${named} is not P-256, P-384 or P-521`);
    close(algorithm);
    const point = takeBits(info);
    close(info);
    if (point.length !== 1 + 2 * known.bytes || point[0] !== 4)
      throw invalid(what, `its point is not an uncompressed ${known.curve} point`);
    return { kind: 'ec', curve: known.curve, keyBits: point };
  }
  if (id === '1.2.840.113549.1.1.1') {
    if (takeContent(algorithm, tag.null).length !== 0) throw invalid(what, 'a NULL has content');
    close(algorithm);
    const key = takeBits(info);
    close(info);
    const keyWhole = derCursor(key, what, 4096);
    const numbers = open(keyWhole, tag.sequence);
    close(keyWhole);
    const modulus = takeUnsigned(numbers, 2048);
    const exponent = takeUnsigned(numbers, 4);
    close(numbers);
    const last = exponent[exponent.length - 1]!;
    if (last % 2 === 0 || (exponent.length === 1 && last < 3)) throw invalid(what, 'its RSA exponent is even or 1');
    if (modulus[modulus.length - 1]! % 2 === 0) throw invalid(what, 'its RSA modulus is even');
    return { kind: 'rsa', bits: modulus.length * 8 - (Math.clz32(modulus[0]!) - 24), keyBits: key };
  }
  if (id === '1.3.101.112') {
    close(algorithm);
    const point = takeBits(info);
    close(info);
    if (point.length !== 32) throw invalid(what, 'an Ed25519 key has 32 bytes');
    return { kind: 'ed25519', keyBits: point };
  }
  throw invalid(what, `key algorithm ${id} is not EC, RSA or Ed25519`);
}

/** Makes a public key of bytes that were described. Throws `der/invalid` when they are no key (a point off its curve). */
export function publicKeyOf(spki: Buffer, what = 'public key'): KeyObject {
  try {
    // As PEM: Node asks of any object whether it is one of four kinds of key by catching what each throws, which costs
    // 15 us, and 100 with a deep stack. A text is asked nothing.
    return createPublicKey(pemEncode('PUBLIC KEY', spki));
  } catch (error) {
    throw new Fault('der/invalid', `${what} is malformed: it is not a valid key`, { cause: error });
  }
}

/** RSA moduli outside this are not used, on certificates or for tokens: one is weak, the other costs its verifier too much. */
export const rsaLimits = { least: 2048, most: 8192 } as const;

interface SignatureFacts {
  readonly kind: KeyShape['kind'];
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

/** As `verifySignature`, at `place`. */
export function verifySignatureAt(
  place: Place,
  algorithm: Buffer,
  shape: KeyShape,
  key: KeyObject,
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
  return facts;
}

function verifyingKey(facts: SignatureFacts, key: KeyObject) {
  if (!facts.pss) return key;
  return { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: saltLengths[facts.hash ?? 'sha256'] };
}

export interface JwtAlgorithmFacts {
  readonly kind: 'ec' | 'rsa';
  readonly curve?: Curve;
  /** What WebCrypto calls it when a key is imported. */
  readonly webCrypto: { readonly name: string; readonly namedCurve?: Curve; readonly hash?: string };
}
const rsaJwt = (name: string, hash: string): JwtAlgorithmFacts => ({ kind: 'rsa', webCrypto: { name, hash } });
const ecJwt = (curve: Curve): JwtAlgorithmFacts => ({
  kind: 'ec',
  curve,
  webCrypto: { name: 'ECDSA', namedCurve: curve },
});

/** The nine algorithms of JWT-SVIDs (JWT-3) and the key each needs. */
export const jwtAlgorithms: Readonly<Record<JwtAlgorithm, JwtAlgorithmFacts>> = {
  RS256: rsaJwt('RSASSA-PKCS1-v1_5', 'SHA-256'),
  RS384: rsaJwt('RSASSA-PKCS1-v1_5', 'SHA-384'),
  RS512: rsaJwt('RSASSA-PKCS1-v1_5', 'SHA-512'),
  ES256: ecJwt('P-256'),
  ES384: ecJwt('P-384'),
  ES512: ecJwt('P-521'),
  PS256: rsaJwt('RSA-PSS', 'SHA-256'),
  PS384: rsaJwt('RSA-PSS', 'SHA-384'),
  PS512: rsaJwt('RSA-PSS', 'SHA-512'),
};

/** Whether `alg` is one of the nine. */
export function isJwtAlgorithm(alg: unknown): alg is JwtAlgorithm {
  return typeof alg === 'string' && Object.hasOwn(jwtAlgorithms, alg);
}

/** Whether a key of this shape may verify `alg`: ES256 only with P-256 and so on; RSA within `rsaLimits`. */
export function fitsJwtAlgorithm(shape: KeyShape, alg: JwtAlgorithm): boolean {
  const facts = jwtAlgorithms[alg];
  if (shape.kind === 'ec') return facts.curve === shape.curve;
  return shape.kind === 'rsa' && facts.kind === 'rsa' && shape.bits >= rsaLimits.least && shape.bits <= rsaLimits.most;
}

function sameShape(a: KeyShape, b: KeyShape): boolean {
  if (a.kind === 'ec') return b.kind === 'ec' && a.curve === b.curve;
  return a.kind === 'rsa' ? b.kind === 'rsa' && a.bits === b.bits : b.kind === 'ed25519';
}
