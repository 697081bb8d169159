/**
 * Keys of Google Cloud KMS, over its REST API with tokens of google-auth-library (an optional package). A key is a
 * CryptoKey with one version; labels say whose it is and when its server last said that it uses it. A CryptoKey cannot be
 * deleted, so a removed one stays, with `mutual-active` false and its version destroyed.
 */
import { createHash, createPublicKey } from 'node:crypto';
import { type ClassicKeyType, classicKeyTypes, classicTypeOf } from '../crypto/algorithms.ts';
import { Fault, quote } from '../errors.ts';
import { sleep } from '../run/clock.ts';
import { type GoogleApi, googleApi } from './google-api.ts';
import { decodeName, encodeName, generations, generationTime } from './key-name.ts';
import type { KeyStore } from './key-store.ts';
import type { LoadPackage } from './load-package.ts';
import type { GcpKmsOptions } from './options.ts';
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
import type { StoredKey } from './upkeep.ts';

const name = 'Google Cloud KMS';
const algorithms: Readonly<Record<ClassicKeyType, string>> = {
  'ec-p256': 'EC_SIGN_P256_SHA256',
  'ec-p384': 'EC_SIGN_P384_SHA384',
  'rsa-2048': 'RSA_SIGN_PKCS1_2048_SHA256',
  'rsa-3072': 'RSA_SIGN_PKCS1_3072_SHA256',
  'rsa-4096': 'RSA_SIGN_PKCS1_4096_SHA256',
};
/** Google's limit on the id of a CryptoKey. */
const longestName = 63;
/** A new version is made in the background; it is asked for this often, milliseconds. */
const pollEvery = 250;

// biome-ignore lint/suspicious/noExplicitAny: answers of the API; each is looked into where it is read.
type Answer = any;

const connect = (options: GcpKmsOptions, load: LoadPackage, wanted: string): Promise<GoogleApi> =>
  googleApi(
    {
      base: options.endpoint ?? 'https://cloudkms.googleapis.com',
      scope: 'https://www.googleapis.com/auth/cloudkms',
      credentialsFile: options.credentialsFile,
      wanted,
      unreachable: (detail, why) => unreachable(name, detail, why),
      refused: (doing, detail) => refused(name, doing, detail),
      garbled: (what, detail) => garbled(name, what, detail),
    },
    load,
  );

/** Opens the store. Throws `config/invalid` when the package is missing, `keys/unavailable` when KMS refuses or is away. */
export async function gcpKmsKeys(
  options: GcpKmsOptions,
  owner: { trustDomain: string; server: string },
  ports: RemotePorts & { load: LoadPackage },
): Promise<KeyStore> {
  const api = await connect(options, ports.load, 'keys.store gcp-kms');
  try {
    return await remoteKeys(kmsRemote(api, options, owner, ports), ports);
  } catch (error) {
    api.close();
    throw error;
  }
}

function kmsRemote(
  api: GoogleApi,
  options: GcpKmsOptions,
  { trustDomain, server }: { trustDomain: string; server: string },
  { clock, random }: RemotePorts,
): Remote {
  const ring = options.keyRing;
  const generation = generations(clock, random);
  const label = {
    // Values of labels are lower-case and short: a trust domain goes in as its hash.
    domain: createHash('sha256').update(trustDomain).digest('hex').slice(0, 40),
    server: labelValue(server),
  };
  const seconds = (): string => String(Math.floor(clock.now() / 1000));

  async function cryptoKeys(filter: string, signal: AbortSignal): Promise<Answer[]> {
    const all: Answer[] = [];
    for (let token = ''; ; ) {
      const query = new URLSearchParams({ filter, pageSize: '100', ...(token && { pageToken: token }) });
      const page = await api.call('GET', `${ring}/cryptoKeys?${query}`, 'listing keys', undefined, signal);
      if (page === undefined) throw refused(name, 'listing keys', `no key ring ${ring}`);
      all.push(...(page.cryptoKeys ?? []));
      token = page.nextPageToken ?? '';
      if (token === '') return all;
    }
  }
  const ours = (more = ''): string =>
    `labels.mutual-server-td = ${label.domain} AND labels.mutual-active = true${more}`;

  function stored(key: Answer): (StoredKey & { handle: string }) | undefined {
    // `<generation>-<id>`
    const short = String(key.name).split('/').at(-1) ?? '';
    const [id, made] = [decodeName(short.slice(33)), generationTime(short.slice(0, 32))];
    const labels = key.labels ?? {};
    if (
      id === undefined ||
      made === undefined ||
      labels['mutual-server-td'] !== label.domain ||
      labels['mutual-active'] !== 'true'
    )
      return undefined;
    return {
      id,
      owner: labels['mutual-server-id'] === label.server ? server : String(labels['mutual-server-id']),
      handle: key.name,
      made,
      used: Number(labels['mutual-last-update']) * 1000 || 0,
    };
  }

  const version = (handle: string): string => `${handle}/cryptoKeyVersions/1`;

  async function read(known: StoredKey & { handle: string }, signal: AbortSignal): Promise<RemoteKey | undefined> {
    const answer = await api.call('GET', `${version(known.handle)}/publicKey`, 'reading a key', undefined, signal);
    if (typeof answer?.pem !== 'string') return undefined;
    const publicKey = createPublicKey(answer.pem);
    return { ...known, type: classicTypeOf(publicKey), publicKey: publicKey.export({ format: 'der', type: 'spki' }) };
  }

  return {
    name,
    owner: server,
    ecdsa: 'der',
    async create(id, type, signal) {
      const short = `${generation()}-${encodeName(id)}`;
      if (short.length > longestName)
        throw new Fault('input/invalid', `the key name ${quote(id)} is too long for ${name}`);
      const made = await api.call(
        'POST',
        `${ring}/cryptoKeys?cryptoKeyId=${short}`,
        'making a key',
        {
          purpose: 'ASYMMETRIC_SIGN',
          versionTemplate: { algorithm: algorithms[type], protectionLevel: options.protection.toUpperCase() },
          labels: {
            'mutual-server-td': label.domain,
            'mutual-server-id': label.server,
            'mutual-active': 'true',
            'mutual-last-update': seconds(),
          },
        },
        signal,
      );
      if (made === undefined) throw refused(name, 'making a key', `no key ring ${ring}`);
      const known = stored(made);
      if (known?.id !== id) throw garbled(name, 'making a key with another one');
      for (;;) {
        const { state } = (await api.call('GET', version(known.handle), 'reading a key', undefined, signal)) ?? {};
        if (state === 'ENABLED') break;
        if (state !== 'PENDING_GENERATION') throw garbled(name, `making a key with one in the state ${quote(state)}`);
        await sleep(clock, pollEvery, signal);
      }
      const key = await read(known, signal);
      if (key?.type !== type) throw garbled(name, `with a key of type ${key?.type} for one of type ${type}`);
      return key;
    },
    async list(signal) {
      const all = await cryptoKeys(ours(` AND labels.mutual-server-id = ${label.server}`), signal);
      const own = all.map(stored).filter((key) => key?.owner === server);
      return (await Promise.all(own.map((key) => read(key!, signal)))).filter((key) => key !== undefined);
    },
    async listAll(signal) {
      return (await cryptoKeys(ours(), signal)).map(stored).filter((key) => key !== undefined);
    },
    async keepAlive(keys, signal) {
      for (const { handle } of keys) await setLabels(handle, { 'mutual-last-update': seconds() }, signal);
    },
    async sign(key, data, signal) {
      const { hash } = classicKeyTypes[key.type];
      const digest = { [hash]: createHash(hash).update(data).digest('base64') };
      const path = `${version(key.handle)}:asymmetricSign`;
      const answer = await api.call('POST', path, 'signing', { digest }, signal);
      if (answer === undefined) throw lost(name, key.id, `${key.handle} is gone, disabled or destroyed`);
      if (typeof answer.signature !== 'string') throw garbled(name, 'signing without a signature');
      return Buffer.from(answer.signature, 'base64');
    },
    async destroy(key, signal) {
      await setLabels(key.handle, { 'mutual-active': 'false' }, signal);
      await api.call('POST', `${version(key.handle)}:destroy`, 'removing a key', {}, signal);
    },
    explain: (error) => unreachable(name, error),
    close: () => api.close(),
  };

  async function setLabels(handle: string, change: object, signal: AbortSignal): Promise<void> {
    const found = await api.call('GET', handle, 'reading a key', undefined, signal);
    if (found === undefined) return;
    const body = { labels: { ...found.labels, ...change } };
    await api.call('PATCH', `${handle}?updateMask=labels`, 'marking a key', body, signal);
  }
}

/** A server's name as the value of a label: its own when that is allowed, else its hash. */
function labelValue(server: string): string {
  return /^[a-z0-9_-]{1,63}$/.test(server) ? server : createHash('sha256').update(server).digest('hex').slice(0, 40);
}

/** Wraps file keys by a symmetric CryptoKey, given by its whole name or its name in the key ring. */
export async function gcpKmsWrapper(
  options: GcpKmsOptions,
  wrappingKey: string,
  load: LoadPackage,
): Promise<KeyWrapper> {
  const api = await connect(options, load, 'keys.seal.by gcp-kms');
  const path = wrappingKey.includes('/') ? wrappingKey : `${options.keyRing}/cryptoKeys/${wrappingKey}`;
  const purpose = Buffer.from('mutual-sealed-file').toString('base64');
  const call = async (verb: 'encrypt' | 'decrypt', body: object): Promise<Answer> => {
    const doing = `to ${verb} with ${quote(wrappingKey)}`;
    const answer = await api.call('POST', `${path}:${verb}`, doing, { ...body, additionalAuthenticatedData: purpose });
    if (answer === undefined) throw refused(name, doing, 'there is no such key');
    return answer;
  };
  return {
    by: 'gcp-kms',
    async wrap(fileKey) {
      const { ciphertext } = await call('encrypt', { plaintext: fileKey.toString('base64') });
      return { name: wrappingKey, key: String(ciphertext) };
    },
    async unwrap(wrapped) {
      const { plaintext } = await call('decrypt', { ciphertext: wrapped.key });
      return Buffer.from(String(plaintext), 'base64');
    },
  };
}
