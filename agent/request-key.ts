/** A new key pair with the CSR that asks for its certificate. Every SVID has a key of its own, used for nothing else. */
import { generateKeyAside, type KeyType } from '../src/crypto/algorithms.ts';
import { makeCsr } from '../src/crypto/csr.ts';
import type { SpiffeId } from '../src/spiffe/id.ts';

export interface RequestKey {
  /** PKCS#8 DER. */
  readonly pkcs8: Buffer;
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Buffer;
  /** DER. */
  readonly csr: Buffer;
}

/**
 * Makes a key and its CSR.
 * @param uri the SPIFFE ID the CSR names; the server takes the ID from the entry, whatever the CSR says
 */
export async function requestKey(type: KeyType, uri?: SpiffeId): Promise<RequestKey> {
  const { privateKey, publicKey } = await generateKeyAside(type);
  return {
    pkcs8: privateKey.export({ type: 'pkcs8', format: 'der' }),
    spki: publicKey.export({ type: 'spki', format: 'der' }),
    csr: makeCsr(privateKey, uri === undefined ? {} : { uri }),
  };
}
