/**
 * Keys of Azure Key Vault, through its own SDK (two optional packages). Names allow few characters, so a key has a name
 * of its own and tags that say whose it is, what it is called and when its server last said that it uses it.
 */
import { createHash, createPublicKey, type JsonWebKey } from 'node:crypto';
import { type ClassicKeyType, classicKeyTypes, classicTypeOf } from '../crypto/algorithms.ts';
import { Fault, quote } from '../errors.ts';
import { generations, generationTime } from './key-name.ts';
import type { KeyStore } from './key-store.ts';
import { type LoadPackage, loadOptional } from './load-package.ts';
import type { AzureKeyVaultOptions } from './options.ts';
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
import { readSecret } from './secret-file.ts';
import type { StoredKey } from './upkeep.ts';

const name = 'Azure Key Vault';
const kinds: Readonly<Record<ClassicKeyType, { kty: 'EC' | 'RSA'; curve?: string; keySize?: number }>> = {
  'ec-p256': { kty: 'EC', curve: 'P-256' },
  'ec-p384': { kty: 'EC', curve: 'P-384' },
  'rsa-2048': { kty: 'RSA', keySize: 2048 },
  'rsa-3072': { kty: 'RSA', keySize: 3072 },
  'rsa-4096': { kty: 'RSA', keySize: 4096 },
};
const tags = {
  domain: 'mutual-server-td',
  server: 'mutual-server-id',
  id: 'mutual-key-id',
  used: 'mutual-last-update',
} as const;

// biome-ignore lint/suspicious/noExplicitAny: the SDK's own values; each is looked into where it is read.
type Answer = any;

interface KeysSdk {
  KeyClient: new (
    url: string,
    credential: object,
    options?: object,
  ) => {
    createKey(name: string, type: string, options: object): Promise<Answer>;
    getKey(name: string, options?: object): Promise<Answer>;
    listPropertiesOfKeys(options?: object): AsyncIterable<Answer>;
    updateKeyProperties(name: string, version: string, options: object): Promise<Answer>;
    beginDeleteKey(name: string, options?: object): Promise<Answer>;
  };
  CryptographyClient: new (
    keyId: string,
    credential: object,
    options?: object,
  ) => {
    sign(algorithm: string, digest: Uint8Array, options?: object): Promise<{ result: Uint8Array }>;
    wrapKey(algorithm: string, key: Uint8Array, options?: object): Promise<{ result: Uint8Array }>;
    unwrapKey(algorithm: string, key: Uint8Array, options?: object): Promise<{ result: Uint8Array }>;
  };
}
interface IdentitySdk {
  DefaultAzureCredential: new (options?: object) => object;
  ClientSecretCredential: new (tenantId: string, clientId: string, secret: string, options?: object) => object;
}

/** Retries are ours, not the SDK's: a caller waits for the answer. */
const clientOptions = { retryOptions: { maxRetries: 1, maxRetryDelayInMs: 500 } };

async function connect(
  options: AzureKeyVaultOptions,
  load: LoadPackage,
  wanted: string,
): Promise<{ sdk: KeysSdk; credential: object }> {
  const sdk = await loadOptional<KeysSdk>(load, '@azure/keyvault-keys', wanted);
  const identity = await loadOptional<IdentitySdk>(load, '@azure/identity', wanted);
  const { tenantId, clientId, clientSecret, clientSecretFile } = options;
  if (clientSecret === undefined && clientSecretFile === undefined) {
    const chosen = {
      ...(tenantId !== undefined && { tenantId }),
      ...(clientId !== undefined && { managedIdentityClientId: clientId, workloadIdentityClientId: clientId }),
    };
    return { sdk, credential: new identity.DefaultAzureCredential(chosen) };
  }
  if (tenantId === undefined || clientId === undefined) {
    throw new Fault('config/invalid', 'a client secret for Azure Key Vault is given without its tenant or client', {
      hint: 'Give keys.azureKeyVault.tenantId and keys.azureKeyVault.clientId.',
    });
  }
  const secret = await readSecret({ value: clientSecret, file: clientSecretFile }, 'client secret of Azure', '');
  return { sdk, credential: new identity.ClientSecretCredential(tenantId, clientId, secret) };
}

/** Opens the store. Throws `config/invalid` when a package is missing, `keys/unavailable` when the vault refuses or is away. */
export async function azureKeyVaultKeys(
  options: AzureKeyVaultOptions,
  owner: { trustDomain: string; server: string },
  ports: RemotePorts & { load: LoadPackage },
): Promise<KeyStore> {
  const { sdk, credential } = await connect(options, ports.load, 'keys.store azure-key-vault');
  return remoteKeys(vaultRemote(sdk, credential, options, owner, ports), ports);
}

function vaultRemote(
  { KeyClient, CryptographyClient }: KeysSdk,
  credential: object,
  options: AzureKeyVaultOptions,
  { trustDomain, server }: { trustDomain: string; server: string },
  { clock, random }: RemotePorts,
): Remote {
  const client = new KeyClient(options.vaultUrl, credential, clientOptions);
  const signers = new Map<string, InstanceType<KeysSdk['CryptographyClient']>>();
  const generation = generations(clock, random);
  const seconds = (): string => String(Math.floor(clock.now() / 1000));

  function stored(properties: Answer): (StoredKey & { handle: string }) | undefined {
    const found = properties.tags ?? {};
    const made = generationTime(String(properties.name).slice('mutual-'.length));
    if (made === undefined) return undefined;
    if (found[tags.domain] !== trustDomain || found[tags.server] === undefined || found[tags.id] === undefined)
      return undefined;
    return {
      id: found[tags.id],
      owner: found[tags.server],
      handle: properties.name,
      made,
      used: Number(found[tags.used]) * 1000 || 0,
    };
  }
  async function allOf(signal: AbortSignal): Promise<(StoredKey & { handle: string })[]> {
    const all: (StoredKey & { handle: string })[] = [];
    for await (const properties of client.listPropertiesOfKeys({ abortSignal: signal })) {
      const known = properties.enabled === false ? undefined : stored(properties);
      if (known !== undefined) all.push(known);
    }
    return all;
  }
  function remoteKey(answer: Answer): RemoteKey {
    const known = stored(answer.properties);
    const keyId = answer.id ?? answer.key?.kid;
    if (known === undefined || typeof keyId !== 'string') throw garbled(name, 'a key without its tags or its id');
    const publicKey = createPublicKey({ key: jwkOf(answer.key), format: 'jwk' });
    signers.set(known.handle, new CryptographyClient(keyId, credential, clientOptions));
    return { ...known, type: classicTypeOf(publicKey), publicKey: publicKey.export({ format: 'der', type: 'spki' }) };
  }

  return {
    name,
    owner: server,
    ecdsa: 'raw',
    async create(id, type, signal) {
      const { kty, ...shape } = kinds[type];
      const answer = await client.createKey(
        // Names are shared by all that use the vault, and one that was deleted cannot be taken again for months.
        `mutual-${generation()}`,
        options.hsm ? `${kty}-HSM` : kty,
        {
          ...shape,
          keyOps: ['sign', 'verify'],
          tags: { [tags.domain]: trustDomain, [tags.server]: server, [tags.id]: id, [tags.used]: seconds() },
          abortSignal: signal,
        },
      );
      const made = remoteKey(answer);
      if (made.type !== type) throw garbled(name, `with a key of type ${made.type} for one of type ${type}`);
      return made;
    },
    async list(signal) {
      const own = (await allOf(signal)).filter(({ owner }) => owner === server);
      const found = await Promise.all(
        own.map(({ handle }) =>
          client.getKey(handle, { abortSignal: signal }).then(remoteKey, (error: unknown) => {
            if (isGone(error)) return undefined;
            throw error;
          }),
        ),
      );
      return found.filter((key) => key !== undefined);
    },
    listAll: allOf,
    async keepAlive(keys, signal) {
      for (const { handle, id } of keys) {
        const { properties } = await client.getKey(handle, { abortSignal: signal });
        await client.updateKeyProperties(handle, properties.version, {
          tags: {
            ...properties.tags,
            [tags.domain]: trustDomain,
            [tags.server]: server,
            [tags.id]: id,
            [tags.used]: seconds(),
          },
          abortSignal: signal,
        });
      }
    },
    async sign(key, data, signal) {
      const signer = signers.get(key.handle);
      if (signer === undefined) throw lost(name, key.id, `${key.handle} was removed`);
      const { hash, jwa } = classicKeyTypes[key.type];
      const digest = createHash(hash).update(data).digest();
      try {
        return Buffer.from((await signer.sign(jwa, digest, { abortSignal: signal })).result);
      } catch (error) {
        throw isGone(error) ? lost(name, key.id, error) : error;
      }
    },
    async destroy(key, signal) {
      await client.beginDeleteKey(key.handle, { abortSignal: signal }).catch((error: unknown) => {
        if (!isGone(error)) throw error;
      });
    },
    explain: explainAzure,
  };
}

/** The public members alone, as Node reads them. */
function jwkOf(key: Answer): JsonWebKey {
  const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('base64url');
  const kty = String(key?.kty).replace(/-HSM$/, '');
  return kty === 'RSA'
    ? { kty, n: text(key.n), e: text(key.e) }
    : { kty, crv: key?.crv, x: text(key?.x), y: text(key?.y) };
}

/** Deleted or disabled. */
function isGone(error: unknown): boolean {
  const { statusCode, code, message } = (error ?? {}) as { statusCode?: number; code?: string; message?: string };
  return statusCode === 404 || code === 'KeyNotFound' || (statusCode === 403 && /disabled/i.test(message ?? ''));
}

function explainAzure(error: unknown, doing: string): Fault {
  const {
    statusCode = 0,
    name: kind,
    message,
  } = (error ?? {}) as { statusCode?: number; name?: string; message?: string };
  const said = `${kind}: status ${statusCode}: ${message}`;
  if (/Credential|Authentication/.test(kind ?? '')) return refused(name, 'the credentials', said);
  if (statusCode >= 400 && statusCode < 500 && statusCode !== 429) return refused(name, doing, said);
  return unreachable(name, said, statusCode >= 400 ? 'failed' : undefined);
}

/** Wraps file keys by an RSA key of the vault, given by its name or its whole id. */
export async function azureKeyVaultWrapper(
  options: AzureKeyVaultOptions,
  wrappingKey: string,
  load: LoadPackage,
): Promise<KeyWrapper> {
  const { sdk, credential } = await connect(options, load, 'keys.seal.by azure-key-vault');
  const explained = (doing: string) => (error: unknown) => {
    throw error instanceof Fault ? error : explainAzure(error, `${doing} with ${quote(wrappingKey)}`);
  };
  const algorithm = 'RSA-OAEP-256';
  return {
    by: 'azure-key-vault',
    async wrap(fileKey) {
      const id = wrappingKey.startsWith('https://')
        ? wrappingKey
        : (
            await new sdk.KeyClient(options.vaultUrl, credential, clientOptions)
              .getKey(wrappingKey)
              .catch(explained('reading'))
          ).id;
      const { result } = await new sdk.CryptographyClient(id, credential, clientOptions)
        .wrapKey(algorithm, fileKey)
        .catch(explained('wrapping'));
      // The id names the version: a rotated key still opens what the old one sealed.
      return { name: id, key: Buffer.from(result).toString('base64') };
    },
    async unwrap(wrapped, path) {
      // A token goes where the id points: to the configured vault and nowhere else, whatever the file says.
      if (
        !URL.canParse(String(wrapped.name)) ||
        new URL(String(wrapped.name)).host !== new URL(options.vaultUrl).host
      ) {
        throw new Fault(
          'keys/sealed',
          `file ${quote(path)} is sealed by a key that is not of ${quote(options.vaultUrl)}`,
          {
            hint: 'Set keys.azureKeyVault.vaultUrl to the vault it was sealed by.',
          },
        );
      }
      const { result } = await new sdk.CryptographyClient(String(wrapped.name), credential, clientOptions)
        .unwrapKey(algorithm, Buffer.from(String(wrapped.key), 'base64'))
        .catch(explained('unwrapping'));
      return Buffer.from(result);
    },
  };
}
