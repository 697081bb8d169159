/**
 * A stand-in for the packages @azure/keyvault-keys and @azure/identity with a vault behind them. It makes real keys and
 * really signs, and refuses every option that the SDK does not have there.
 */
import {
  constants,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { generateKeyAside, type KeyType } from '../../src/crypto/algorithms.ts';
import type { Clock } from '../../src/run/clock.ts';
import { signDigest } from './sign-digest.ts';

interface FakeKey {
  name: string;
  version: string;
  privateKey: KeyObject;
  kty: string;
  enabled: boolean;
  made: number;
  tags: Record<string, string>;
}

export interface FakeAzure {
  readonly packages: { readonly '@azure/keyvault-keys': object; readonly '@azure/identity': object };
  readonly vaultUrl: string;
  readonly keys: Map<string, FakeKey>;
  /** Thrown by every call instead. */
  failure: Error | undefined;
  /** Tokens were asked for by such credentials. */
  readonly credentials: string[];
}

export function azureError(statusCode: number, code: string, message: string = code): Error {
  return Object.assign(new Error(message), { name: 'RestError', statusCode, code });
}

const hashes: Readonly<Record<string, [string, number, string]>> = {
  ES256: ['sha256', 32, 'prime256v1'],
  ES384: ['sha384', 48, 'secp384r1'],
  RS256: ['sha256', 32, 'rsa'],
};

export function fakeAzure(clock: Clock): FakeAzure {
  const vaultUrl = 'https://fake.vault.azure.net';
  const keys = new Map<string, FakeKey>();
  const wrapping = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const wrappingId = `${vaultUrl}/keys/seal/0123`;

  function options(given: object = {}, ...known: string[]): void {
    const strange = Object.keys(given).find((name) => ![...known, 'abortSignal'].includes(name));
    if (strange !== undefined) throw new Error(`option ${strange}`);
  }
  function keyOf(name: string): FakeKey {
    if (fake.failure) throw fake.failure;
    const key = keys.get(name);
    if (key === undefined) throw azureError(404, 'KeyNotFound');
    return key;
  }
  const properties = (key: FakeKey): object => ({
    name: key.name,
    version: key.version,
    enabled: key.enabled,
    // Whole seconds, as Azure tells them.
    createdOn: new Date(Math.floor(key.made / 1000) * 1000),
    tags: { ...key.tags },
    vaultUrl,
  });
  const shown = (key: FakeKey): object => {
    const jwk = createPublicKey(key.privateKey).export({ format: 'jwk' });
    const bytes = (text: unknown): Uint8Array | undefined =>
      text === undefined ? undefined : new Uint8Array(Buffer.from(String(text), 'base64url'));
    const id = `${vaultUrl}/keys/${key.name}/${key.version}`;
    return {
      name: key.name,
      id,
      key: { kid: id, kty: key.kty, crv: jwk.crv, x: bytes(jwk.x), y: bytes(jwk.y), n: bytes(jwk.n), e: bytes(jwk.e) },
      properties: properties(key),
    };
  };
  const checkCredential = (credential: object): void => {
    if ((credential as { isFake?: true }).isFake !== true) throw new Error('no credential');
  };

  class KeyClient {
    constructor(url: string, credential: object, given?: object) {
      if (url !== vaultUrl) throw new Error(`vault ${url}`);
      checkCredential(credential);
      options(given, 'retryOptions');
    }
    async createKey(name: string, kty: string, given: Record<string, unknown>): Promise<object> {
      if (fake.failure) throw fake.failure;
      options(given, 'curve', 'keySize', 'keyOps', 'tags');
      if (!/^[0-9a-zA-Z-]{1,127}$/.test(name)) throw azureError(400, 'BadParameter', name);
      if (String(given.keyOps) !== 'sign,verify') throw azureError(400, 'BadParameter', 'keyOps');
      const wanted: Record<string, KeyType> = {
        'EC P-256': 'ec-p256',
        'EC P-384': 'ec-p384',
        'RSA 2048': 'rsa-2048',
        'RSA 3072': 'rsa-3072',
        'RSA 4096': 'rsa-4096',
      };
      const type = wanted[`${kty.replace('-HSM', '')} ${given.curve ?? given.keySize}`];
      if (type === undefined) throw azureError(400, 'BadParameter', 'type');
      const tags = given.tags as Record<string, string>;
      if (Object.values(tags).some((value) => typeof value !== 'string' || value.length > 256))
        throw azureError(400, 'BadParameter', 'tags');
      const { privateKey } = await generateKeyAside(type);
      const key: FakeKey = {
        name,
        version: randomBytes(16).toString('hex'),
        privateKey,
        kty,
        enabled: true,
        made: clock.now(),
        tags,
      };
      keys.set(name, key);
      return shown(key);
    }
    async getKey(name: string, given?: object): Promise<object> {
      options(given);
      if (name === 'seal') return { id: wrappingId };
      const key = keyOf(name);
      if (!key.enabled) throw azureError(403, 'Forbidden', 'Operation get is not allowed on a disabled key.');
      return shown(key);
    }
    async *listPropertiesOfKeys(given?: object): AsyncGenerator<object> {
      options(given);
      if (fake.failure) throw fake.failure;
      for (const key of keys.values()) yield properties(key);
    }
    async updateKeyProperties(name: string, version: string, given: { tags: Record<string, string> }): Promise<object> {
      options(given, 'tags');
      const key = keyOf(name);
      if (key.version !== version) throw azureError(404, 'KeyNotFound');
      key.tags = given.tags;
      return shown(key);
    }
    async beginDeleteKey(name: string, given?: object): Promise<object> {
      options(given);
      keys.delete(keyOf(name).name);
      return {};
    }
  }
  class CryptographyClient {
    readonly keyId: string;
    constructor(keyId: string, credential: object, given?: object) {
      checkCredential(credential);
      options(given, 'retryOptions');
      this.keyId = keyId;
    }
    async sign(algorithm: string, digest: Uint8Array, given?: object): Promise<{ result: Uint8Array }> {
      options(given);
      const key = keyOf(this.keyId.split('/').at(-2)!);
      if (!key.enabled) throw azureError(403, 'Forbidden', 'Operation sign is not allowed on a disabled key.');
      const [hash, length, kind] = hashes[algorithm]!;
      const held = key.privateKey.asymmetricKeyType === 'rsa' ? 'rsa' : key.privateKey.asymmetricKeyDetails?.namedCurve;
      if (held !== kind || digest.length !== length) throw azureError(400, 'BadParameter', 'algorithm or digest');
      return { result: new Uint8Array(signDigest(key.privateKey, Buffer.from(digest), hash)) };
    }
    async wrapKey(algorithm: string, key: Uint8Array): Promise<{ result: Uint8Array }> {
      if (algorithm !== 'RSA-OAEP-256' || this.keyId !== wrappingId) throw azureError(404, 'KeyNotFound');
      const padding = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
      return { result: new Uint8Array(publicEncrypt({ key: wrapping.publicKey, ...padding }, key)) };
    }
    async unwrapKey(algorithm: string, key: Uint8Array): Promise<{ result: Uint8Array }> {
      if (algorithm !== 'RSA-OAEP-256' || this.keyId !== wrappingId) throw azureError(404, 'KeyNotFound');
      const padding = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
      return { result: new Uint8Array(privateDecrypt({ key: wrapping.privateKey, ...padding }, key)) };
    }
  }

  const fake: FakeAzure = {
    vaultUrl,
    keys,
    failure: undefined,
    credentials: [],
    packages: {
      '@azure/keyvault-keys': { KeyClient, CryptographyClient },
      '@azure/identity': {
        DefaultAzureCredential: class {
          readonly isFake = true;
          constructor(given: object) {
            fake.credentials.push(`default ${JSON.stringify(given)}`);
          }
        },
        ClientSecretCredential: class {
          readonly isFake = true;
          constructor(...given: string[]) {
            fake.credentials.push(`secret ${given.join(' ')}`);
          }
        },
      },
    },
  };
  return fake;
}
