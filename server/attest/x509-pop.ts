/**
 * x509pop: the node presents a certificate chain of an existing PKI and signs two nonces, the server's and its own, to
 * prove that it holds the key. Sizes are checked before anything costs.
 */
import { constants, createHash, type KeyObject, verify } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { type Certificate, KeyUsage, parseCertificate } from '../../src/crypto/certificate.ts';
import { verifyChain } from '../../src/crypto/chain.ts';
import { pemDecode } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { makeId, pathOf, type SpiffeId } from '../../src/spiffe/id.ts';
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import type { AttestorPorts, NodeAttestor } from './methods.ts';

export interface X509PopOptions {
  readonly mode: 'external_pki' | 'spiffe';
  readonly caBundlePaths: readonly string[];
  /** In mode spiffe: the part of the SVID's path that is cut off. */
  readonly spiffePrefix: string;
  readonly maxIntermediates: number;
  /** Bits. */
  readonly maxRsaKeySize: number;
}

const nonceLength = 32;
const largestPayload = 256 * 1024;

export async function x509Pop(options: X509PopOptions, ports: AttestorPorts): Promise<NodeAttestor> {
  const { trustDomain, store, clock, random } = ports;
  const roots: Certificate[] = [];
  for (const path of options.caBundlePaths) {
    const text = await readFile(path, 'utf8').catch((cause) => {
      throw new Fault(
        'config/invalid',
        `x509pop: the CA bundle ${quote(path)} cannot be read: ${(cause as Error).message}`,
        { cause },
      );
    });
    roots.push(...pemDecode(text, 'CERTIFICATE', path).map(parseCertificate));
  }

  return async (payload, challenge) => {
    const chain = readChain(payload, options.maxIntermediates);
    const leaf = chain[0] as Certificate;
    const key = leaf.publicKey;
    requireKey(key, options.maxRsaKeySize);
    if (((leaf.keyUsage ?? 0) & KeyUsage.digitalSignature) === 0)
      throw refused('certificate not intended for digital signature use');
    const now = clock.now();
    let id: SpiffeId;
    let path: readonly Certificate[];
    if (options.mode === 'spiffe') {
      const bundle = (await store.bundles.get(trustDomain)) as Bundle;
      const svid = verifyX509Svid(
        chain.map(({ der }) => der),
        bundle,
        now,
      );
      const rest = pathOf(svid.id);
      if (!rest.startsWith(`${options.spiffePrefix}/`)) {
        throw refused(`the SVID ${quote(svid.id)} is not under the prefix ${quote(options.spiffePrefix)}`);
      }
      id = makeId(trustDomain, `/spire/agent/x509pop${rest.slice(options.spiffePrefix.length)}`);
      path = svid.path;
    } else {
      path = verifyChain(leaf, chain.slice(1), roots, now);
      id = makeId(trustDomain, `/spire/agent/x509pop/${fingerprint(leaf)}`);
    }
    const nonce = random.bytes(nonceLength);
    const kind = key.asymmetricKeyType === 'rsa' ? 'rsa_signature' : 'ecdsa_signature';
    const response = await challenge(Buffer.from(JSON.stringify({ [kind]: { nonce: nonce.toString('base64') } })));
    if (!provesPossession(key, nonce, response, kind)) throw refused('challenge response verification failed');
    return { id, selectors: selectorsOf(leaf, path), canReattest: true };
  };
}

function refused(why: string): Fault {
  return new Fault('caller/denied', `nodeattestor(x509pop): ${why}`);
}

function readChain(payload: Buffer, maxIntermediates: number): Certificate[] {
  if (payload.length > largestPayload)
    throw refused(`the payload has ${payload.length} bytes, more than ${largestPayload}`);
  const { certificates } = readJson<{ certificates?: unknown }>(payload);
  if (!Array.isArray(certificates) || certificates.length === 0) throw refused('no certificate to attest');
  if (certificates.length - 1 > maxIntermediates) {
    throw refused(`${certificates.length - 1} intermediate certificates are more than the ${maxIntermediates} allowed`);
  }
  return certificates.map((one) => {
    if (typeof one !== 'string') throw refused('certificates must be base64 strings');
    return parseCertificate(Buffer.from(one, 'base64'));
  });
}

function requireKey(key: KeyObject, maxRsaKeySize: number): void {
  const bits = key.asymmetricKeyDetails?.modulusLength;
  if (key.asymmetricKeyType === 'ec') return;
  if (key.asymmetricKeyType !== 'rsa' || bits === undefined)
    throw refused(`unsupported public key type ${quote(key.asymmetricKeyType)}`);
  if (bits > maxRsaKeySize) throw refused(`the RSA key has ${bits} bits, more than the ${maxRsaKeySize} allowed`);
}

function provesPossession(
  key: KeyObject,
  nonce: Buffer,
  payload: Buffer,
  kind: 'rsa_signature' | 'ecdsa_signature',
): boolean {
  if (payload.length > largestPayload) return false;
  const response = readJson<Record<string, Record<string, unknown> | null>>(payload)[kind];
  if (!response || typeof response !== 'object') return false;
  const theirs = bytes(response.nonce);
  if (theirs.length !== nonceLength) return false;
  const signed = Buffer.concat([nonce, theirs]);
  if (kind === 'rsa_signature') {
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    return verify(
      'sha256',
      signed,
      { key, padding, saltLength: constants.RSA_PSS_SALTLEN_AUTO },
      bytes(response.signature),
    );
  }
  const size = Math.ceil(curveBits(key) / 8);
  const r = bytes(response.r);
  const s = bytes(response.s);
  if (r.length > size || s.length > size) return false;
  const signature = Buffer.concat([Buffer.alloc(size - r.length), r, Buffer.alloc(size - s.length), s]);
  return verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
}

function curveBits(key: KeyObject): number {
  return { prime256v1: 256, secp384r1: 384, secp521r1: 521 }[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 256;
}

function bytes(value: unknown): Buffer {
  return typeof value === 'string' ? Buffer.from(value, 'base64') : Buffer.alloc(0);
}

function readJson<T>(payload: Buffer): T {
  try {
    const value: unknown = JSON.parse(payload.toString('utf8'));
    if (value && typeof value === 'object') return value as T;
  } catch {}
  throw refused('the payload is not a JSON object');
}

/** SHA-1 as SPIRE's agents' IDs have it: a name, not a proof. */
function fingerprint(certificate: Certificate): string {
  return createHash('sha1').update(certificate.der).digest('hex');
}

function selectorsOf(leaf: Certificate, path: readonly Certificate[]): Selector[] {
  const selectors: Selector[] = [];
  if (leaf.commonName) selectors.push(makeSelector('x509pop', `subject:cn:${leaf.commonName}`));
  for (const above of path.slice(1)) selectors.push(makeSelector('x509pop', `ca:fingerprint:${fingerprint(above)}`));
  // Whole bytes, as SPIRE writes them: an entry made from its documentation must match here too.
  const serial = leaf.serial.toString(16);
  selectors.push(makeSelector('x509pop', `serialnumber:${serial.padStart(serial.length + (serial.length % 2), '0')}`));
  for (const uri of leaf.uris) {
    const match = /^x509pop:\/\/[^/]+\/([^/]+)\/(.+)$/.exec(uri);
    if (match) selectors.push(makeSelector('x509pop', `san:${match[1]}:${match[2]}`));
  }
  return [...new Set(selectors)];
}
