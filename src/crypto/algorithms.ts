/**
 * What is known of keys, in two tables: those we make, and the JWS algorithms of JWT-SVIDs. What is not in a table is
 * refused; a key's shape is checked from its bytes before any library is asked to do arithmetic with it.
 */
import { createPublicKey, generateKeyPair, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { Fault, quote } from '../errors.ts';
import {
  close,
  derCursor,
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

/** The types that tokens may be signed with too, and that every store and peer has. */
export const classicKeyTypeNames = ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096'] as const;
export type ClassicKeyType = (typeof classicKeyTypeNames)[number];
/** FIPS 204, for certificates only. Experimental: no SPIFFE document names it and hardly a peer verifies it. */
export type MlDsaKeyType = `ml-dsa-${MlDsaSet}`;
export type KeyType = ClassicKeyType | MlDsaKeyType;
type MlDsaSet = '44' | '65' | '87';
export const keyTypeNames: readonly [...typeof classicKeyTypeNames, 'ml-dsa-44', 'ml-dsa-65', 'ml-dsa-87'] = [
  ...classicKeyTypeNames,
  'ml-dsa-44',
  'ml-dsa-65',
  'ml-dsa-87',
];
export type JwtAlgorithm = 'RS256' | 'RS384' | 'RS512' | 'ES256' | 'ES384' | 'ES512' | 'PS256' | 'PS384' | 'PS512';
export type Curve = 'P-256' | 'P-384' | 'P-521';
export type Hash = 'sha256' | 'sha384' | 'sha512';

/** What the bytes of a SubjectPublicKeyInfo say of the key. */
export type KeyShape =
  | { readonly kind: 'ec'; readonly curve: Curve }
  | { readonly kind: 'rsa' /** Bits of the modulus. */; readonly bits: number }
  | { readonly kind: 'ed25519' }
  | { readonly kind: 'ml-dsa'; readonly set: MlDsaSet };

/** A key's shape with its bits: what a subject key identifier is computed from. */
export type DescribedKey = KeyShape & { readonly keyBits: Buffer };

/** AlgorithmIdentifier of ECDSA and of RSA PKCS#1 v1.5, by the last number of its identifier. */
export const ecdsaWith = (last: number): Buffer => sequence(objectId(`1.2.840.10045.4.3.${last}`));
export const rsaWith = (last: number): Buffer => sequence(objectId(`1.2.840.113549.1.1.${last}`), nothing());

/** Parameter sets of ML-DSA with their identifier, which stands for key and signature alike, and the bytes of a key (RFC 9881). */
const mlDsaSets: Readonly<Record<MlDsaSet, { readonly id: string; readonly bytes: number }>> = {
  44: { id: '2.16.840.1.101.3.4.3.17', bytes: 1312 },
  65: { id: '2.16.840.1.101.3.4.3.18', bytes: 1952 },
  87: { id: '2.16.840.1.101.3.4.3.19', bytes: 2592 },
};

export interface KeyTypeFacts {
  readonly type: KeyType;
  /** Null for those that hash within. */
  readonly hash: Hash | null;
  /** AlgorithmIdentifier of its signatures on certificates, DER. */
  readonly signatureAlgorithm: Buffer;
  readonly shape: KeyShape;
  /** Whether making one takes long enough (tens to thousands of ms) to keep off the event loop. */
  readonly slow: boolean;
}

export interface ClassicKeyTypeFacts extends KeyTypeFacts {
  readonly type: ClassicKeyType;
  /** The JWS algorithm its signatures are called. */
  readonly jwa: JwtAlgorithm;
  readonly hash: Hash;
}

/** The keys this program makes unless told otherwise. RSA signs with PKCS#1 v1.5. */
export const classicKeyTypes: Readonly<Record<ClassicKeyType, ClassicKeyTypeFacts>> = {
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
  'rsa-3072': {
    type: 'rsa-3072',
    jwa: 'RS256',
    hash: 'sha256',
    signatureAlgorithm: rsaWith(11),
    shape: { kind: 'rsa', bits: 3072 },
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

const mlDsa = (set: MlDsaSet): KeyTypeFacts => ({
  type: `ml-dsa-${set}`,
  hash: null,
  signatureAlgorithm: sequence(objectId(mlDsaSets[set].id)),
  shape: { kind: 'ml-dsa', set },
  slow: false,
});

/** All keys this program can make. */
export const keyTypes: Readonly<Record<KeyType, KeyTypeFacts>> = {
  ...classicKeyTypes,
  'ml-dsa-44': mlDsa('44'),
  'ml-dsa-65': mlDsa('65'),
  'ml-dsa-87': mlDsa('87'),
};

/** Whether keys of a type are of the experimental kind. */
export function isMlDsa(type: KeyType): type is MlDsaKeyType {
  return type.startsWith('ml-dsa-');
}

/** The facts of a type that a store of keys elsewhere knows too. Throws `state/refused` for ML-DSA. */
export function classicFacts(type: KeyType, store: string): ClassicKeyTypeFacts {
  if (!isMlDsa(type)) return classicKeyTypes[type];
  throw new Fault('state/refused', `${store} cannot hold a key of type ${quote(type)}`, {
    hint: `Use one of ${Object.keys(classicKeyTypes).join(', ')} there, or keep keys on disk.`,
  });
}

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
  if (shape.kind === 'ml-dsa') return generateMlDsa(shape.set);
  return generateKeyPairSync('ec', { namedCurve: shape.kind === 'ec' ? shape.curve : '' });
}

function generateMlDsa(set: MlDsaSet): { privateKey: KeyObject; publicKey: KeyObject } {
  try {
    return generateKeyPairSync(`ml-dsa-${set}`);
  } catch (cause) {
    throw new Fault('state/refused', `this Node cannot make a key of type ${quote(`ml-dsa-${set}`)}`, {
      hint: 'ML-DSA needs a Node with OpenSSL 3.5 or newer.',
      cause,
    });
  }
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
    if (details?.modulusLength === 3072) return 'rsa-3072';
    if (details?.modulusLength === 4096) return 'rsa-4096';
  }
  const type = key.asymmetricKeyType ?? '';
  if (Object.hasOwn(keyTypes, type)) return type as MlDsaKeyType;
  const found = `${key.asymmetricKeyType ?? key.type} ${details?.namedCurve ?? details?.modulusLength ?? ''}`.trim();
  throw new Fault('input/invalid', `a key of type ${quote(found)} cannot be used`, {
    hint: `Use one of ${Object.keys(keyTypes).join(', ')}.`,
  });
}

/** As `keyTypeOf`, of the types that are not experimental. */
export function classicTypeOf(key: KeyObject): ClassicKeyType {
  return classicFacts(keyTypeOf(key), 'a store of keys').type;
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
  const set = (Object.keys(mlDsaSets) as MlDsaSet[]).find((each) => mlDsaSets[each].id === id);
  if (set !== undefined) {
    close(algorithm);
    const key = takeBits(info);
    close(info);
    const { bytes } = mlDsaSets[set];
    if (key.length !== bytes) throw invalid(what, `an ML-DSA-${set} key has ${bytes} bytes`);
    return { kind: 'ml-dsa', set, keyBits: key };
  }
  throw invalid(what, `key algorithm ${id} is not EC, RSA, Ed25519 or ML-DSA`);
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
  if (a.kind === 'ml-dsa') return b.kind === 'ml-dsa' && a.set === b.set;
  return a.kind === 'rsa' ? b.kind === 'rsa' && a.bits === b.bits : b.kind === 'ed25519';
}
