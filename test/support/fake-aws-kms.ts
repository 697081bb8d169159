/**
 * A stand-in for the package @aws-sdk/client-kms with a KMS behind it. It makes real keys and really signs, and refuses
 * every field that the API does not have there, as KMS would.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes, randomUUID, sign } from 'node:crypto';
import { generateKeyAside, type KeyType } from '../../src/crypto/algorithms.ts';
import { derSignature } from '../../src/crypto/ecdsa-signature.ts';
import type { Clock } from '../../src/run/clock.ts';
import { publicDer, signDigest } from './sign-digest.ts';

interface FakeKey {
  id: string;
  spec: string;
  privateKey: KeyObject;
  made: number;
  state: 'Enabled' | 'Disabled' | 'PendingDeletion';
  tags: { TagKey: string; TagValue: string }[];
}

export interface FakeAwsKms {
  readonly package: object;
  readonly keys: Map<string, FakeKey>;
  readonly aliases: Map<string, { target: string; updated: number }>;
  readonly calls: string[];
  /** Thrown by every call instead. */
  failure: Error | undefined;
}

type Input = Record<string, unknown>;
const specs: Readonly<Record<string, [KeyType, string, string]>> = {
  ECC_NIST_P256: ['ec-p256', 'ECDSA_SHA_256', 'sha256'],
  ECC_NIST_P384: ['ec-p384', 'ECDSA_SHA_384', 'sha384'],
  RSA_2048: ['rsa-2048', 'RSASSA_PKCS1_V1_5_SHA_256', 'sha256'],
  RSA_3072: ['rsa-3072', 'RSASSA_PKCS1_V1_5_SHA_256', 'sha256'],
  RSA_4096: ['rsa-4096', 'RSASSA_PKCS1_V1_5_SHA_256', 'sha256'],
};

/** An error as the SDK throws them. */
export function awsError(name: string, status = 400): Error {
  return Object.assign(new Error(`${name} of the service`), { name, $metadata: { httpStatusCode: status } });
}

export function fakeAwsKms(clock: Clock, region = 'eu-test-1'): FakeAwsKms {
  const keys = new Map<string, FakeKey>();
  const aliases = new Map<string, { target: string; updated: number }>();
  const wrapping = randomBytes(32);

  function keyOf(id: unknown, usable = true): FakeKey {
    const key = keys.get(String(id));
    if (key === undefined) throw awsError('NotFoundException');
    if (usable && key.state === 'Disabled') throw awsError('DisabledException');
    if (usable && key.state === 'PendingDeletion') throw awsError('KMSInvalidStateException');
    return key;
  }
  function fields(input: Input, required: readonly string[], optional: readonly string[] = []): void {
    for (const field of Object.keys(input))
      if (![...required, ...optional].includes(field)) throw awsError(`ValidationException:${field}`);
    for (const field of required) if (input[field] === undefined) throw awsError(`ValidationException:no ${field}`);
  }
  const aliasName = (name: unknown): string => {
    if (!/^alias\/[a-zA-Z0-9/_-]+$/.test(String(name)) || String(name).length > 256)
      throw awsError('InvalidAliasNameException');
    return String(name);
  };
  /** Pages of two, whatever was asked for. */
  function page<T>(all: readonly T[], input: Input, member: string): object {
    const from = Number(input.Marker ?? 0);
    const more = from + 2 < all.length;
    return { [member]: all.slice(from, from + 2), Truncated: more, ...(more && { NextMarker: String(from + 2) }) };
  }

  const commands: Record<string, (input: Input) => object | Promise<object>> = {
    async CreateKey(input) {
      fields(input, ['KeySpec', 'KeyUsage', 'Description', 'Tags'], ['Policy']);
      const type = specs[String(input.KeySpec)]?.[0];
      if (type === undefined || input.KeyUsage !== 'SIGN_VERIFY') throw awsError('ValidationException');
      if (input.Policy !== undefined) JSON.parse(String(input.Policy));
      const tags = input.Tags as FakeKey['tags'];
      for (const { TagKey, TagValue } of tags)
        if (!/^[\w .:/=+@-]{1,128}$/.test(TagKey) || !/^[\w .:/=+@-]{0,256}$/.test(TagValue))
          throw awsError('TagException');
      const { privateKey } = await generateKeyAside(type);
      const key: FakeKey = {
        id: randomUUID(),
        spec: String(input.KeySpec),
        privateKey,
        made: clock.now(),
        state: 'Enabled',
        tags,
      };
      keys.set(key.id, key);
      return { KeyMetadata: { KeyId: key.id } };
    },
    DescribeKey(input) {
      fields(input, ['KeyId']);
      const { id, made, state, spec } = keyOf(input.KeyId, false);
      return { KeyMetadata: { KeyId: id, CreationDate: new Date(made), KeyState: state, KeySpec: spec } };
    },
    GetPublicKey(input) {
      fields(input, ['KeyId']);
      return { PublicKey: new Uint8Array(publicDer(keyOf(input.KeyId).privateKey)) };
    },
    CreateAlias(input) {
      fields(input, ['AliasName', 'TargetKeyId']);
      const name = aliasName(input.AliasName);
      if (aliases.has(name)) throw awsError('AlreadyExistsException');
      aliases.set(name, { target: keyOf(input.TargetKeyId).id, updated: clock.now() });
      return {};
    },
    UpdateAlias(input) {
      fields(input, ['AliasName', 'TargetKeyId']);
      const name = aliasName(input.AliasName);
      if (!aliases.has(name)) throw awsError('NotFoundException');
      aliases.set(name, { target: keyOf(input.TargetKeyId).id, updated: clock.now() });
      return {};
    },
    DeleteAlias(input) {
      fields(input, ['AliasName']);
      if (!aliases.delete(aliasName(input.AliasName))) throw awsError('NotFoundException');
      return {};
    },
    ListAliases(input) {
      fields(input, ['Limit'], ['Marker']);
      const all = [...aliases].map(([AliasName, { target, updated }]) => ({
        AliasName,
        TargetKeyId: target,
        LastUpdatedDate: new Date(updated),
      }));
      // Aliases of AWS itself may mean no key yet.
      return page([{ AliasName: 'alias/aws/s3' }, ...all], input, 'Aliases');
    },
    ListKeys(input) {
      fields(input, ['Limit'], ['Marker']);
      return page(
        [...keys.keys()].map((KeyId) => ({ KeyId })),
        input,
        'Keys',
      );
    },
    ListResourceTags(input) {
      fields(input, ['KeyId']);
      return { Tags: keyOf(input.KeyId, false).tags };
    },
    ScheduleKeyDeletion(input) {
      fields(input, ['KeyId', 'PendingWindowInDays']);
      if (!(Number(input.PendingWindowInDays) >= 7 && Number(input.PendingWindowInDays) <= 30))
        throw awsError('ValidationException');
      const key = keyOf(input.KeyId, false);
      if (key.state === 'PendingDeletion') throw awsError('KMSInvalidStateException');
      key.state = 'PendingDeletion';
      return {};
    },
    Sign(input) {
      fields(input, ['KeyId', 'Message', 'MessageType', 'SigningAlgorithm']);
      const key = keyOf(input.KeyId);
      const [type, algorithm, hash] = specs[key.spec]!;
      const message = Buffer.from(input.Message as Uint8Array);
      if (input.SigningAlgorithm !== algorithm) throw awsError('InvalidKeyUsageException');
      if (input.MessageType === 'RAW') {
        if (message.length === 0 || message.length > 4096) throw awsError('ValidationException');
        return { Signature: new Uint8Array(sign(hash, message, key.privateKey)) };
      }
      if (input.MessageType !== 'DIGEST' || message.length !== (hash === 'sha256' ? 32 : 48))
        throw awsError('ValidationException');
      const raw = signDigest(key.privateKey, message, hash);
      return {
        Signature: new Uint8Array(
          type.startsWith('ec') ? derSignature(raw, type === 'ec-p256' ? 'P-256' : 'P-384') : raw,
        ),
      };
    },
    Encrypt(input) {
      fields(input, ['KeyId', 'Plaintext', 'EncryptionContext']);
      if (input.KeyId !== 'alias/seal') throw awsError('NotFoundException');
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', wrapping, nonce).setAAD(
        Buffer.from(JSON.stringify(input.EncryptionContext)),
      );
      return {
        CiphertextBlob: new Uint8Array(
          Buffer.concat([nonce, cipher.update(input.Plaintext as Uint8Array), cipher.final(), cipher.getAuthTag()]),
        ),
      };
    },
    Decrypt(input) {
      fields(input, ['KeyId', 'CiphertextBlob', 'EncryptionContext']);
      if (input.KeyId !== 'alias/seal') throw awsError('NotFoundException');
      const text = Buffer.from(input.CiphertextBlob as Uint8Array);
      const decipher = createDecipheriv('aes-256-gcm', wrapping, text.subarray(0, 12)).setAAD(
        Buffer.from(JSON.stringify(input.EncryptionContext)),
      );
      decipher.setAuthTag(text.subarray(-16));
      try {
        return {
          Plaintext: new Uint8Array(Buffer.concat([decipher.update(text.subarray(12, -16)), decipher.final()])),
        };
      } catch {
        throw awsError('InvalidCiphertextException');
      }
    },
  };

  const fake: FakeAwsKms = {
    keys,
    aliases,
    calls: [],
    failure: undefined,
    package: {
      KMSClient: class {
        constructor(config: { region?: string }) {
          if (config.region !== region) throw new Error(`region ${config.region}`);
        }
        async send(command: { name: string; input: Input }): Promise<object> {
          fake.calls.push(command.name);
          if (fake.failure) throw fake.failure;
          return commands[command.name]!(command.input);
        }
        destroy(): void {}
      },
      ...Object.fromEntries(
        Object.keys(commands).map((name) => [
          `${name}Command`,
          class {
            readonly name = name;
            readonly input: Input;
            constructor(input: Input) {
              this.input = input;
            }
          },
        ]),
      ),
    },
  };
  return fake;
}
