/**
 * Certificate signing requests (PKCS#10, RFC 2986), read as what they are: hostile bytes from someone not yet trusted.
 * Size, structure and the kind and size of the key are checked before anything costly happens. What a request asks for
 * is handed on as plain values; nothing here grants any of it.
 */
import { createPublicKey, type KeyObject, sign } from 'node:crypto';
import { Fault } from '../errors.ts';
import { type DescribedKey, describeSpki, type KeyType, keyTypeOf, keyTypes, publicKeyOf } from './algorithms.ts';
import { KeyUsage } from './certificate.ts';
import { commonNameOf, readGeneralNames } from './certificate-names.ts';
import { basicConstraints, keyUsage, name, subjectAltName } from './certificate-writer.ts';
import {
  bitString,
  type Cursor,
  close,
  context,
  derCursor,
  integer,
  invalid,
  objectId,
  open,
  openInside,
  peek,
  sequence,
  set,
  tag,
  takeBits,
  takeBoolean,
  takeContent,
  takeElement,
  takeObjectId,
  takeSmall,
} from './der.ts';
import { pemEncode } from './pem.ts';
import { verifySignatureAt } from './signature.ts';
import type { Place } from './workplace.ts';

export interface Csr {
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Buffer;
  readonly key: DescribedKey;
  /** Made when first asked for. Throws `der/invalid` when the bytes are no key. */
  readonly publicKey: KeyObject;
  /** Name, DER; checked for structure only. */
  readonly subject: Buffer;
  readonly commonName: string | undefined;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** Whether the request is signed by the key it carries. Throws `der/invalid` when its bytes are no key. */
  verify(): boolean;
  /** As `verify`, at `place`. */
  verifyAt(place: Place): boolean | Promise<boolean>;
}

const what = 'certificate request';
const largest = 16_384;
const extensionRequest = '1.2.840.113549.1.9.14';
const subjectAltNameId = '2.5.29.17';

/**
 * Parses a request whose key is EC P-256 or P-384, RSA of 2048 to `maxRsaBits` bits, or ML-DSA where it is taken. Throws
 * `der/invalid`, and `state/refused` for ML-DSA elsewhere.
 * Requested extensions other than the alternative name are ignored, critical or not: they are wishes.
 */
export function parseCsr(
  der: Buffer,
  { maxRsaBits = 4096, mlDsa = false }: { maxRsaBits?: number; mlDsa?: boolean } = {},
): Csr {
  const whole = derCursor(der, what, largest);
  const outer = open(whole, tag.sequence);
  close(whole);
  const info = takeElement(outer, tag.sequence);
  const algorithm = takeElement(outer, tag.sequence);
  const signature = takeBits(outer);
  close(outer);

  const body = open(derCursor(info, what), tag.sequence);
  if (takeSmall(body) !== 0) throw invalid(what, 'its version is not 1');
  const subject = takeElement(body, tag.sequence);
  const spki = takeElement(body, tag.sequence);
  const attributes = open(body, 0xa0);
  close(body);

  const key = describeSpki(spki, `${what} key`);
  if (key.kind === 'ed25519' || (key.kind === 'ec' && key.curve === 'P-521')) {
    throw invalid(what, 'its key is neither EC P-256 or P-384 nor RSA');
  }
  if (key.kind === 'ml-dsa' && !mlDsa) {
    throw new Fault(
      'state/refused',
      `${what} refused: its key is of ML-DSA, which is experimental and not taken here`,
      {
        hint: 'Ask with a key of EC P-256, or have experimental.mlDsa set on the server.',
      },
    );
  }
  if (key.kind === 'rsa' && (key.bits < 2048 || key.bits > maxRsaBits)) {
    throw invalid(what, `its RSA key has ${key.bits} bits; 2048 to ${maxRsaBits} are accepted`);
  }
  const names = readAttributes(attributes);
  let publicKey: KeyObject | undefined;
  const keyOnce = (): KeyObject => {
    publicKey ??= publicKeyOf(spki, `${what} key`);
    return publicKey;
  };
  /** Bytes that are no key verify nothing either, and that is another mistake. */
  const told = (isSigned: boolean): boolean => isSigned || keyOnce() === undefined;
  const verifyAt = (place: Place): boolean | Promise<boolean> => {
    // The key as text: one that is used once is not worth an object, which V8's nursery could not let go of.
    const asked = publicKey ?? pemEncode('PUBLIC KEY', spki);
    const outcome = verifySignatureAt(place, algorithm, key, asked, info, signature, maxRsaBits);
    return outcome instanceof Promise ? outcome.then(told) : told(outcome);
  };
  return {
    spki,
    key,
    get publicKey() {
      return keyOnce();
    },
    subject,
    commonName: commonNameOf(subject, what),
    uris: names.uris,
    dnsNames: names.dnsNames,
    verify: () => verifyAt('here') as boolean,
    verifyAt,
  };
}

function readAttributes(attributes: Cursor): { uris: string[]; dnsNames: string[] } {
  let names: { uris: string[]; dnsNames: string[] } = { uris: [], dnsNames: [] };
  let count = 0;
  let requested = false;
  while (peek(attributes) >= 0) {
    if (++count > 16) throw invalid(what, 'it has more than 16 attributes');
    const attribute = open(attributes, tag.sequence);
    const id = takeObjectId(attribute);
    const values = open(attribute, tag.set);
    close(attribute);
    if (id !== extensionRequest) continue;
    if (requested) throw invalid(what, 'it asks for extensions twice');
    requested = true;
    const list = open(values, tag.sequence);
    close(values);
    const seen = new Set<string>();
    while (peek(list) >= 0) {
      if (seen.size === 64) throw invalid(what, 'it asks for more than 64 extensions');
      const extension = open(list, tag.sequence);
      const extensionId = takeObjectId(extension);
      if (peek(extension) === tag.boolean && !takeBoolean(extension))
        throw invalid(what, 'an extension writes out a FALSE, which is not DER');
      const value = takeContent(extension, tag.octetString);
      close(extension);
      if (seen.has(extensionId)) throw invalid(what, `it asks for extension ${extensionId} twice`);
      seen.add(extensionId);
      if (extensionId === subjectAltNameId) names = readGeneralNames(openInside(extension, value), what);
    }
  }
  return names;
}

const defaultSubject = name([
  ['C', 'US'],
  ['O', 'SPIRE'],
]);

interface Asked {
  readonly uri?: string;
  readonly dnsNames?: readonly string[];
  /** A DER Name; C=US, O=SPIRE when absent. */
  readonly subject?: Buffer;
  /** Asks for a certificate authority, in words for whoever signs by hand. */
  readonly authority?: boolean;
}

/** Makes a request signed by `key`, of one of the key types we make. @param asked the names wished for */
export function makeCsr(key: KeyObject, asked: Asked = {}): Buffer {
  const facts = keyTypes[keyTypeOf(key)];
  const info = requestInfo(createPublicKey(key).export({ format: 'der', type: 'spki' }), asked);
  return sequence(info, facts.signatureAlgorithm, bitString(sign(facts.hash, info, key)));
}

/**
 * Makes a request for a key that need not be at hand.
 * @param sign gives the signature of the bytes, DER for ECDSA
 */
export async function writeCsr(
  key: { readonly type: KeyType; readonly publicKey: Buffer },
  asked: Asked,
  sign: (info: Buffer) => Buffer | Promise<Buffer>,
): Promise<Buffer> {
  const info = requestInfo(key.publicKey, asked);
  return sequence(info, keyTypes[key.type].signatureAlgorithm, bitString(await sign(info)));
}

function requestInfo(spki: Buffer, asked: Asked): Buffer {
  const uris = asked.uri === undefined ? [] : [asked.uri];
  const dnsNames = asked.dnsNames ?? [];
  const extensions = [
    ...(asked.authority ? [basicConstraints({ ca: true }), keyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign)] : []),
    ...(uris.length + dnsNames.length > 0 ? [subjectAltName({ uris, dnsNames, critical: false })] : []),
  ];
  const wishes = extensions.length === 0 ? [] : [sequence(objectId(extensionRequest), set(sequence(...extensions)))];
  return sequence(integer(0), asked.subject ?? defaultSubject, spki, context(0, wishes));
}
