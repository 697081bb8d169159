/**
 * Keys of AWS KMS. The alias `alias/MUTUAL_SERVER/<trust domain>/<server>/<id>` says what a name means now; its date of
 * update is when the server last said that it uses the key. Keys that no alias means any more are found by their tags.
 * The SDK is an optional package; credentials come from where it always looks for them.
 */
import { createHash, createPublicKey } from 'node:crypto';
import { type ClassicKeyType, classicKeyTypes, classicTypeOf } from '../crypto/algorithms.ts';
import { quote } from '../errors.ts';
import { decodeName, encodeName } from './key-name.ts';
import type { KeyStore } from './key-store.ts';
import { type LoadPackage, loadOptional } from './load-package.ts';
import type { AwsKmsOptions } from './options.ts';
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
import { readFileOf } from './secret-file.ts';
import type { StoredKey } from './upkeep.ts';

const name = 'AWS KMS';
const packageName = '@aws-sdk/client-kms';
const specs: Readonly<Record<ClassicKeyType, string>> = {
  'ec-p256': 'ECC_NIST_P256',
  'ec-p384': 'ECC_NIST_P384',
  'rsa-2048': 'RSA_2048',
  'rsa-3072': 'RSA_3072',
  'rsa-4096': 'RSA_4096',
};
const algorithms: Readonly<Record<ClassicKeyType, string>> = {
  'ec-p256': 'ECDSA_SHA_256',
  'ec-p384': 'ECDSA_SHA_384',
  'rsa-2048': 'RSASSA_PKCS1_V1_5_SHA_256',
  'rsa-3072': 'RSASSA_PKCS1_V1_5_SHA_256',
  'rsa-4096': 'RSASSA_PKCS1_V1_5_SHA_256',
};
/** KMS hashes messages up to this length itself. */
const longestMessage = 4096;
/** The shortest that KMS allows. Until then a removed key can be brought back. */
const pendingDays = 7;
/** Tags of ours on every key. */
const tags = { domain: 'mutual-server-td', server: 'mutual-server-id', id: 'mutual-key-id' } as const;

// biome-ignore lint/suspicious/noExplicitAny: the SDK's own messages; each is looked into where it is read.
type Answer = any;
/** What is used of the SDK. */
interface Sdk {
  KMSClient: new (config: object) => { send(command: object, options?: object): Promise<Answer>; destroy(): void };
  [command: `${string}Command`]: new (input: object) => object;
}

interface Kms {
  send(command: string, input: object, signal?: AbortSignal): Promise<Answer>;
  close(): void;
}

async function connect(options: AwsKmsOptions, load: LoadPackage, wanted: string): Promise<Kms> {
  const sdk = await loadOptional<Sdk>(load, packageName, wanted);
  const client = new sdk.KMSClient({
    region: options.region,
    maxAttempts: 2,
    ...(options.endpoint !== undefined && { endpoint: options.endpoint }),
  });
  return {
    send: (command, input, signal) =>
      client.send(new sdk[`${command}Command`]!(input), signal === undefined ? {} : { abortSignal: signal }),
    close: () => client.destroy(),
  };
}

/** Opens the store. Throws `config/invalid` when the SDK is missing, `keys/unavailable` when KMS refuses or is away. */
export async function awsKmsKeys(
  options: AwsKmsOptions,
  owner: { trustDomain: string; server: string },
  ports: RemotePorts & { load: LoadPackage },
): Promise<KeyStore> {
  const policy =
    options.keyPolicyFile === undefined ? undefined : await readFileOf(options.keyPolicyFile, 'key policy');
  const kms = await connect(options, ports.load, 'keys.store aws-kms');
  try {
    return await remoteKeys(kmsRemote(kms, options, policy, owner, ports), ports);
  } catch (error) {
    kms.close();
    throw error;
  }
}

function kmsRemote(
  kms: Kms,
  options: AwsKmsOptions,
  policy: string | undefined,
  { trustDomain, server }: { trustDomain: string; server: string },
  { clock }: RemotePorts,
): Remote {
  const domainPrefix = `alias/MUTUAL_SERVER/${encodeName(trustDomain)}/`;
  const prefix = `${domainPrefix}${encodeName(server)}/`;
  const aliasOf = (id: string): string => `${prefix}${encodeName(id)}`;
  const ownTags = (id: string): { TagKey: string; TagValue: string }[] => [
    { TagKey: tags.domain, TagValue: trustDomain },
    { TagKey: tags.server, TagValue: server },
    // Values of tags have a small alphabet too.
    { TagKey: tags.id, TagValue: encodeName(id) },
    ...options.tags.map((one) => {
      const at = one.indexOf('=');
      return { TagKey: one.slice(0, at), TagValue: one.slice(at + 1) };
    }),
  ];

  async function pages(command: string, member: string, input: object, signal: AbortSignal): Promise<Answer[]> {
    const all: Answer[] = [];
    for (let marker: string | undefined; ; ) {
      const page = await kms.send(command, { ...input, Limit: 50, ...(marker && { Marker: marker }) }, signal);
      all.push(...(page[member] ?? []));
      if (!page.Truncated) return all;
      marker = page.NextMarker;
    }
  }

  const described = async (handle: string, signal: AbortSignal): Promise<Answer> =>
    (await kms.send('DescribeKey', { KeyId: handle }, signal)).KeyMetadata ?? {};

  async function read(id: string, handle: string, signal: AbortSignal, used?: number): Promise<RemoteKey> {
    const [{ PublicKey }, meta] = await Promise.all([
      kms.send('GetPublicKey', { KeyId: handle }, signal),
      described(handle, signal),
    ]);
    const publicKey = createPublicKey({ key: Buffer.from(PublicKey), format: 'der', type: 'spki' });
    return {
      id,
      owner: server,
      handle,
      type: classicTypeOf(publicKey),
      publicKey: publicKey.export({ format: 'der', type: 'spki' }),
      made: timeOf(meta.CreationDate),
      used,
      current: true,
    };
  }

  /** Aliases of the trust domain, with whose they are. */
  async function aliases(signal: AbortSignal): Promise<{ id: string; owner: string; handle: string; used: number }[]> {
    const all = await pages('ListAliases', 'Aliases', {}, signal);
    return all.flatMap(({ AliasName, TargetKeyId, LastUpdatedDate, CreationDate }) => {
      if (typeof AliasName !== 'string' || !AliasName.startsWith(domainPrefix) || TargetKeyId === undefined) return [];
      const [owner, id, ...more] = AliasName.slice(domainPrefix.length).split('/').map(decodeName);
      if (owner === undefined || id === undefined || more.length > 0) return [];
      return [{ id, owner, handle: TargetKeyId as string, used: timeOf(LastUpdatedDate ?? CreationDate) }];
    });
  }

  return {
    name,
    owner: server,
    ecdsa: 'der',
    async create(id, type, signal) {
      const { KeyMetadata } = await kms.send(
        'CreateKey',
        {
          KeySpec: specs[type],
          KeyUsage: 'SIGN_VERIFY',
          Description: `Mutual: signing key of a server of ${trustDomain}`,
          Tags: ownTags(id),
          ...(policy !== undefined && { Policy: policy }),
        },
        signal,
      );
      const handle = KeyMetadata?.KeyId;
      if (typeof handle !== 'string') throw garbled(name, 'making a key without its id');
      const made = await read(id, handle, signal, clock.now());
      if (made.type !== type) throw garbled(name, `with a key of type ${made.type} for one of type ${type}`);
      const pair = { AliasName: aliasOf(id), TargetKeyId: handle };
      await kms.send('CreateAlias', pair, signal).catch((error: unknown) => {
        if (errorName(error) === 'AlreadyExistsException') return kms.send('UpdateAlias', pair, signal);
        throw error;
      });
      return made;
    },
    async list(signal) {
      const own = (await aliases(signal)).filter(({ owner }) => owner === server);
      const found = await Promise.all(
        own.map(({ id, handle, used }) =>
          read(id, handle, signal, used).catch((error: unknown) => {
            // Disabled or about to be deleted: of no use, and none of our keys any more.
            if (isGone(error)) return undefined;
            throw error;
          }),
        ),
      );
      return found.filter((key) => key !== undefined);
    },
    async listAll(signal) {
      const current = await aliases(signal);
      const meant = new Set(current.map(({ handle }) => handle));
      const keys: (StoredKey & { handle: string })[] = current.map((alias) => ({
        ...alias,
        made: alias.used,
        current: true,
      }));
      for (const { KeyId } of await pages('ListKeys', 'Keys', {}, signal)) {
        if (meant.has(KeyId)) continue;
        // Keys of others may forbid even that they are looked at.
        const found = await kms.send('ListResourceTags', { KeyId }, signal).catch(() => ({}));
        const value = (tag: string): string | undefined =>
          found.Tags?.find(({ TagKey }: { TagKey: string }) => TagKey === tag)?.TagValue;
        const [owner, id] = [value(tags.server), decodeName(value(tags.id) ?? '')];
        if (value(tags.domain) !== trustDomain || owner === undefined || id === undefined) continue;
        const meta = await described(KeyId, signal);
        if (meta.KeyState === 'PendingDeletion') continue;
        keys.push({ owner, id, handle: KeyId, made: timeOf(meta.CreationDate), current: false });
      }
      return keys;
    },
    async keepAlive(keys, signal) {
      // Pointing an alias to where it points already renews its date.
      for (const { id, handle } of keys)
        await kms.send('UpdateAlias', { AliasName: aliasOf(id), TargetKeyId: handle }, signal);
    },
    async sign(key, data, signal) {
      const isShort = data.length > 0 && data.length <= longestMessage;
      const { Signature } = await kms
        .send(
          'Sign',
          {
            KeyId: key.handle,
            Message: isShort ? data : createHash(classicKeyTypes[key.type].hash).update(data).digest(),
            MessageType: isShort ? 'RAW' : 'DIGEST',
            SigningAlgorithm: algorithms[key.type],
          },
          signal,
        )
        .catch((error: unknown) => {
          throw isGone(error) ? lost(name, key.id, error) : error;
        });
      if (Signature === undefined) throw garbled(name, 'signing without a signature');
      return Buffer.from(Signature);
    },
    async destroy(key, signal) {
      const mine = (await aliases(signal)).find(({ handle }) => handle === key.handle);
      if (mine !== undefined) {
        const AliasName = `${domainPrefix}${encodeName(mine.owner)}/${encodeName(mine.id)}`;
        await kms.send('DeleteAlias', { AliasName }, signal);
      }
      await kms
        .send('ScheduleKeyDeletion', { KeyId: key.handle, PendingWindowInDays: pendingDays }, signal)
        .catch((error: unknown) => {
          if (!isGone(error)) throw error;
        });
    },
    explain: explainAws,
    close: () => kms.close(),
  };
}

/** Wraps file keys by a symmetric key of KMS, named by id, ARN or alias. */
export async function awsKmsWrapper(
  options: AwsKmsOptions,
  wrappingKey: string,
  load: LoadPackage,
): Promise<KeyWrapper> {
  const kms = await connect(options, load, 'keys.seal.by aws-kms');
  const context = { EncryptionContext: { purpose: 'mutual-sealed-file' } };
  const call = (command: string, input: object): Promise<Answer> =>
    kms.send(command, { KeyId: wrappingKey, ...context, ...input }).catch((error: unknown) => {
      throw explainAws(error, `${command} with ${quote(wrappingKey)}`);
    });
  return {
    by: 'aws-kms',
    async wrap(fileKey) {
      const { CiphertextBlob } = await call('Encrypt', { Plaintext: fileKey });
      return { name: wrappingKey, key: Buffer.from(CiphertextBlob).toString('base64') };
    },
    async unwrap(wrapped) {
      const { Plaintext } = await call('Decrypt', { CiphertextBlob: Buffer.from(String(wrapped.key), 'base64') });
      return Buffer.from(Plaintext);
    },
  };
}

const errorName = (error: unknown): string => String((error as { name?: unknown } | undefined)?.name ?? '');

function isGone(error: unknown): boolean {
  return ['NotFoundException', 'DisabledException', 'KMSInvalidStateException'].includes(errorName(error));
}

function explainAws(error: unknown, doing: string) {
  const said = `${errorName(error)}: ${(error as Error).message}`;
  const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode ?? 0;
  if (
    /CredentialsProviderError|ExpiredToken|UnrecognizedClient|InvalidSignature|InvalidClientTokenId/.test(
      errorName(error),
    )
  )
    return refused(name, 'the credentials', said);
  if (status >= 400 && status < 500 && !/Throttl|LimitExceeded/.test(errorName(error)))
    return refused(name, doing, said);
  return unreachable(name, said, status >= 400 ? 'failed' : undefined);
}

function timeOf(value: unknown): number {
  return value instanceof Date ? value.getTime() : 0;
}
