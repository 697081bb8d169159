/**
 * Where private keys live, as a port: named keys that sign. A key need not leave its store, so that a file, a token or
 * a cloud service can stand behind the same few methods. `test/suites/key-store.ts` is what every store must pass.
 */
import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { type KeyType, keyTypeOf, keyTypes } from '../crypto/algorithms.ts';
import { rawSignature } from '../crypto/ecdsa-signature.ts';

export interface Key {
  readonly id: string;
  readonly type: KeyType;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
  /**
   * Signs with the hash of the key's type (`keyTypes[type].hash`). RSA is PKCS#1 v1.5.
   * @param encoding of an ECDSA signature: `der` for certificates, `raw` (r then s) for tokens; RSA has only one
   */
  sign(data: Buffer, encoding: 'der' | 'raw'): Buffer | Promise<Buffer>;
  /** The private key as unencrypted PKCS#8, DER; absent where a key cannot leave its store. */
  exportPkcs8?(): Buffer;
}

export interface KeyStore {
  /** Makes a key and puts it in the place of any other of that name. A Key held from before goes on signing as it was. */
  generate(id: string, type: KeyType): Promise<Key>;
  get(id: string): Promise<Key | undefined>;
  /** All keys, by name. */
  list(): Promise<readonly Key[]>;
  /** Forgets a key; nothing happens when there is none. */
  remove(id: string): Promise<void>;
}

/** A key of this process's own memory: it signs at once and can be handed on. */
export interface HeldKey extends Key {
  sign(data: Buffer, encoding: 'der' | 'raw'): Buffer;
  exportPkcs8(): Buffer;
}

/** A key held in this process. Throws `input/invalid` when it is none of our types. */
export function heldKey(id: string, privateKey: KeyObject): HeldKey {
  const type = keyTypeOf(privateKey);
  const { hash, shape } = keyTypes[type];
  return {
    id,
    type,
    publicKey: createPublicKey(privateKey).export({ format: 'der', type: 'spki' }),
    sign(data, encoding) {
      const signature = sign(hash, data, privateKey);
      return encoding === 'raw' && shape.kind === 'ec' ? rawSignature(signature, shape.curve) : signature;
    },
    exportPkcs8: () => privateKey.export({ format: 'der', type: 'pkcs8' }),
  };
}

/** As `heldKey`, from PKCS#8. Throws what `createPrivateKey` throws for bytes that are no key. */
export function heldKeyOf(id: string, pkcs8: Buffer): HeldKey {
  return heldKey(id, createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }));
}
