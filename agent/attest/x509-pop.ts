/**
 * `x509pop`: the node has a certificate, and proves that it holds the key by signing a nonce of the server together with
 * one of its own. JSON both ways; bytes are base64, as SPIRE's plugin writes them.
 */
import { constants, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { parseCertificate } from '../../src/crypto/certificate.ts';
import { pemDecode, readPrivateKeyPem } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import { readFileIfThere } from '../../src/run/file.ts';
import type { Random } from '../../src/run/random.ts';
import type { AttestMethod } from './methods.ts';

export interface X509PopFiles {
  /** PEM files. */
  readonly privateKeyPath: string;
  readonly certificatePath: string;
  readonly intermediatesPath?: string | undefined;
}

/** Bytes of a nonce, the server's and ours. */
const nonceLength = 32;

export function x509Pop(files: X509PopFiles, random: Random): AttestMethod {
  return {
    name: 'x509pop',
    async begin() {
      const chain = await readChain(files);
      const key = readPrivateKeyPem(await readText(files.privateKeyPath, 'private key'), files.privateKeyPath);
      requirePair(chain[0]!, key, files);
      const payload = { certificates: chain.map((certificate) => certificate.toString('base64')) };
      return {
        data: { type: 'x509pop', payload: Buffer.from(JSON.stringify(payload)) },
        answer: (challenge) => answer(challenge, key, random.bytes(nonceLength)),
      };
    },
  };
}

/** Signs SHA-256 of the server's nonce followed by ours. Throws `peer/unavailable` for a challenge of another kind. */
function answer(challenge: Buffer, key: KeyObject, nonce: Buffer): Buffer {
  const kind = key.asymmetricKeyType === 'rsa' ? 'rsa_signature' : 'ecdsa_signature';
  let theirs: Buffer;
  try {
    theirs = Buffer.from(JSON.parse(challenge.toString('utf8'))[kind].nonce, 'base64');
  } catch (error) {
    throw new Fault('peer/unavailable', `the server sent a challenge without ${kind}`, { cause: error });
  }
  // Signing bytes that the server chose alone would make this key an oracle: its part has a fixed length.
  if (theirs.length !== nonceLength) {
    throw new Fault('peer/unavailable', `the server sent a nonce of ${theirs.length} bytes; expected ${nonceLength}`);
  }
  const both = Buffer.concat([theirs, nonce]);
  const response =
    kind === 'rsa_signature'
      ? { nonce: nonce.toString('base64'), signature: signPss(both, key).toString('base64') }
      : { nonce: nonce.toString('base64'), ...signEcdsa(both, key) };
  return Buffer.from(JSON.stringify({ [kind]: response }));
}

const signPss = (data: Buffer, key: KeyObject): Buffer =>
  sign('sha256', data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });

function signEcdsa(data: Buffer, key: KeyObject): { r: string; s: string } {
  const signature = sign('sha256', data, { key, dsaEncoding: 'ieee-p1363' });
  const half = signature.length / 2;
  return { r: signature.subarray(0, half).toString('base64'), s: signature.subarray(half).toString('base64') };
}

async function readChain(files: X509PopFiles): Promise<Buffer[]> {
  const chain = pemDecode(await readText(files.certificatePath, 'certificate'), 'CERTIFICATE', files.certificatePath);
  if (files.intermediatesPath !== undefined) {
    chain.push(
      ...pemDecode(await readText(files.intermediatesPath, 'intermediates'), 'CERTIFICATE', files.intermediatesPath),
    );
  }
  return chain;
}

async function readText(path: string, what: string): Promise<string> {
  const content = await readFileIfThere(path);
  if (content !== undefined) return content.data.toString('utf8');
  throw new Fault('config/invalid', `x509pop ${what} file ${quote(path)} does not exist`, {
    hint: 'Set the node attestor to the PEM files of this node.',
  });
}

function requirePair(certificate: Buffer, key: KeyObject, files: X509PopFiles): void {
  const mine = createPublicKey(key).export({ type: 'spki', format: 'der' });
  if (parseCertificate(certificate).spki.equals(mine)) return;
  throw new Fault(
    'config/invalid',
    `x509pop private key ${quote(files.privateKeyPath)} is not the key of certificate ${quote(files.certificatePath)}`,
  );
}
