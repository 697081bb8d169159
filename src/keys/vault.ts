/**
 * Keys of the Transit engine of Vault or OpenBao. A key is `mutual.<trust domain>.<server>.<id>.<generation>`; a name that is made
 * again is a new generation, since Transit cannot change the type of a key, and the old one must go on signing.
 */
import { createHash, createPublicKey } from 'node:crypto';
import { type ClassicKeyType, classicKeyTypes, classicTypeOf } from '../crypto/algorithms.ts';
import { Fault, quote } from '../errors.ts';
import { decodeName, encodeName, generations, generationTime } from './key-name.ts';
import type { KeyStore } from './key-store.ts';
import type { VaultKeysOptions } from './options.ts';
import {
  garbled,
  lost,
  type Remote,
  type RemoteKey,
  type RemotePorts,
  refused,
  remoteKeys,
  unreachable,
} from './remote-keys.ts';
import type { KeyWrapper } from './seal.ts';
import { openVault, type VaultSession } from './vault-session.ts';

const name = 'Vault';
const transitTypes: Readonly<Record<ClassicKeyType, string>> = {
  'ec-p256': 'ecdsa-p256',
  'ec-p384': 'ecdsa-p384',
  'rsa-2048': 'rsa-2048',
  'rsa-3072': 'rsa-3072',
  'rsa-4096': 'rsa-4096',
};
const hashes = { sha256: 'sha2-256', sha384: 'sha2-384', sha512: 'sha2-512' } as const;

/** Opens the store and logs in. Throws `config/invalid` or `keys/unavailable`. */
export async function vaultKeys(
  options: VaultKeysOptions,
  owner: { trustDomain: string; server: string },
  ports: RemotePorts,
): Promise<KeyStore> {
  const session = await openVault(options, ports);
  try {
    return await remoteKeys(transit(session, options.transitPath, owner, ports), ports);
  } catch (error) {
    session.close();
    throw error;
  }
}

function transit(
  session: VaultSession,
  path: string,
  { trustDomain, server }: { trustDomain: string; server: string },
  { clock, random }: RemotePorts,
): Remote {
  const generation = generations(clock, random);
  const prefix = `mutual.${encodeName(trustDomain)}.${encodeName(server)}.`;

  /** Undefined for a name that another program, server or trust domain made. */
  function partsOf(handle: string): { id: string; made: number } | undefined {
    if (!handle.startsWith(prefix)) return undefined;
    const [name = '', generation = '', ...more] = handle.slice(prefix.length).split('.');
    const [id, made] = [decodeName(name), generationTime(generation)];
    return id === undefined || made === undefined || more.length > 0 ? undefined : { id, made };
  }

  async function read(handle: string, signal: AbortSignal): Promise<RemoteKey | undefined> {
    const parts = partsOf(handle);
    if (parts === undefined) return undefined;
    const { id, made } = parts;
    const { status, data } = await session.call('GET', `${path}/keys/${handle}`, 'reading a key', undefined, signal);
    if (status === 404) return undefined;
    const first = (data.keys as { [version: string]: { public_key?: unknown; creation_time?: unknown } } | undefined)?.[
      '1'
    ];
    if (typeof first?.public_key !== 'string') throw garbled(name, `a key without a public half for ${quote(id)}`);
    // Someone else's key could be given a name like ours; of a type that we do not make it is none of ours.
    const publicKey = createPublicKey(first.public_key);
    return {
      id,
      owner: server,
      handle,
      type: classicTypeOf(publicKey),
      publicKey: publicKey.export({ format: 'der', type: 'spki' }),
      made,
    };
  }

  return {
    name,
    owner: server,
    ecdsa: 'der',
    async create(id, type, signal) {
      const handle = `${prefix}${encodeName(id)}.${generation()}`;
      const body = { type: transitTypes[type], exportable: false, allow_plaintext_backup: false };
      const { status } = await session.call('POST', `${path}/keys/${handle}`, 'making a key', body, signal);
      if (status === 404) throw noEngine(path);
      const made = await read(handle, signal);
      if (made === undefined) throw garbled(name, `that it has not the key ${quote(id)} that it made`);
      if (made.type !== type) throw garbled(name, `with a key of type ${made.type} for one of type ${type}`);
      return made;
    },
    async list(signal) {
      const { data } = await session.call('LIST', `${path}/keys`, 'listing keys', undefined, signal);
      const handles = Array.isArray(data.keys) ? data.keys.filter((one) => typeof one === 'string') : [];
      const found = await Promise.all(handles.map((handle) => read(handle, signal)));
      return found.filter((key) => key !== undefined);
    },
    async sign(key, data, signal) {
      const { hash, shape } = classicKeyTypes[key.type];
      const body = {
        input: createHash(hash).update(data).digest('base64'),
        prehashed: true,
        key_version: 1,
        ...(shape.kind === 'rsa' ? { signature_algorithm: 'pkcs1v15' } : { marshaling_algorithm: 'asn1' }),
      };
      const path_ = `${path}/sign/${key.handle}/${hashes[hash]}`;
      const { status, data: answer } = await session
        .call('POST', path_, 'signing', body, signal)
        .catch((error: unknown) => {
          // Vault says "signing key not found" with status 400.
          if (error instanceof Fault && /status 400.*not found/i.test(error.detail ?? ''))
            throw lost(name, key.id, error.detail);
          throw error;
        });
      if (status === 404) throw lost(name, key.id, 'status 404');
      const signature = /^vault:v1:([A-Za-z0-9+/]+={0,2})$/.exec(String(answer.signature))?.[1];
      if (signature === undefined) throw garbled(name, 'signing with something else than a signature');
      return Buffer.from(signature, 'base64');
    },
    async destroy(key, signal) {
      const config = `${path}/keys/${key.handle}/config`;
      const { status } = await session
        .call('POST', config, 'removing a key', { deletion_allowed: true }, signal)
        .catch((error: unknown) => {
          if (error instanceof Fault && /no existing key|not found/i.test(error.detail ?? '')) return { status: 404 };
          throw error;
        });
      if (status !== 404)
        await session.call('DELETE', `${path}/keys/${key.handle}`, 'removing a key', undefined, signal);
    },
    explain: (error) => unreachable(name, error),
    close: () => session.close(),
  };
}

function noEngine(path: string): Fault {
  return refused(name, 'making a key', `status 404: no Transit engine at ${path}`);
}

/** Wraps file keys by a Transit key, which must be there. */
export function vaultWrapper(options: VaultKeysOptions, wrappingKey: string, ports: RemotePorts): KeyWrapper {
  const once = async (verb: 'encrypt' | 'decrypt', body: object): Promise<{ readonly [member: string]: unknown }> => {
    const session = await openVault(options, ports);
    try {
      const path = `${options.transitPath}/${verb}/${encodeURIComponent(wrappingKey)}`;
      const { status, data } = await session.call('POST', path, `to ${verb} with ${quote(wrappingKey)}`, body);
      if (status === 404) throw refused(name, `to ${verb} with ${quote(wrappingKey)}`, 'status 404');
      return data;
    } finally {
      session.close();
    }
  };
  return {
    by: 'vault',
    async wrap(fileKey) {
      const { ciphertext } = await once('encrypt', { plaintext: fileKey.toString('base64') });
      if (typeof ciphertext !== 'string') throw garbled(name, 'encrypting with something else than a ciphertext');
      return { name: wrappingKey, key: ciphertext };
    },
    async unwrap(wrapped) {
      const { plaintext } = await once('decrypt', { ciphertext: wrapped.key });
      if (typeof plaintext !== 'string') throw garbled(name, 'decrypting with something else than a plaintext');
      return Buffer.from(plaintext, 'base64');
    },
  };
}
