/**
 * Where private keys live, as a port: named keys that sign. A key need not leave its store, so that a file, a token or
 * a cloud service can stand behind the same few methods. `test/suites/key-store.ts` is what every store must pass.
 */
import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { type KeyType, keyTypeOf, keyTypes } from '../crypto/algorithms.ts';
import { rawSignature } from '../crypto/ecdsa-signature.ts';
import { type Place, workAt } from '../crypto/workplace.ts';

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
  /** As `sign`, at `place`; absent where signing is not this process's own arithmetic. */
  signAt?(place: Place, data: Buffer, encoding: 'der' | 'raw'): Buffer | Promise<Buffer>;
  /** The private key itself, which another thread of this process can be handed; absent where it is not in its memory. */
  readonly keyObject?: KeyObject;
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
  /** Throws what stands in the way of signing now, `keys/unavailable`; absent where nothing can. */
  check?(): Promise<void>;
  /** Ends what goes on behind the store (renewals, upkeep, connections). Its keys are of no use afterwards. */
  close?(): Promise<void>;
}

/** Signs at `place`, as far as the key leaves a choice. */
export function signAt(place: Place, key: Key, data: Buffer, encoding: 'der' | 'raw'): Buffer | Promise<Buffer> {
  return key.signAt === undefined ? key.sign(data, encoding) : key.signAt(place, data, encoding);
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
  const encoded = (signature: Buffer, encoding: 'der' | 'raw'): Buffer =>
    encoding === 'raw' && shape.kind === 'ec' ? rawSignature(signature, shape.curve) : signature;
  return {
    id,
    type,
    keyObject: privateKey,
    publicKey: createPublicKey(privateKey).export({ format: 'der', type: 'spki' }),
    sign: (data, encoding) => encoded(sign(hash, data, privateKey), encoding),
    signAt(place, data, encoding) {
      const signature = workAt<Buffer>(
        // A P-256 signature takes 24 us, and as long to hand it to the pool and back.
        type === 'ec-p256' ? 'here' : place,
        () => sign(hash, data, privateKey),
        (done) => sign(hash, data, privateKey, done),
      );
      return signature instanceof Promise
        ? signature.then((bytes) => encoded(bytes, encoding))
        : encoded(signature, encoding);
    },
    exportPkcs8: () => privateKey.export({ format: 'der', type: 'pkcs8' }),
  };
}

/** As `heldKey`, from PKCS#8. Throws what `createPrivateKey` throws for bytes that are no key. */
export function heldKeyOf(id: string, pkcs8: Buffer): HeldKey {
  return heldKey(id, createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' }));
}
