/**
 * Store `aws_secretsmanager`: a secret of AWS Secrets Manager for each entry, named by `secretname` or `arn`, encrypted by
 * `kmskeyid` when it is made. The tag `spire-svid` says that agents may write it, SPIRE's and ours; any other secret is left
 * alone. A removed secret can be restored for a week, and is when its entry comes back. The SDK is an optional package.
 */
import { type LoadPackage, loadOptional } from '../../src/keys/load-package.ts';
import { foreign, storeRefused, storeUnreachable } from './cloud-faults.ts';
import { printSecret } from './secret.ts';
import { wrong } from './settings.ts';
import type { Place, SvidStore } from './svid-store.ts';

export interface AwsSecretsManagerOptions {
  readonly region: string;
  /** Another address than the region's. */
  readonly endpoint?: string | undefined;
}

const name = 'AWS Secrets Manager';
const packageName = '@aws-sdk/client-secrets-manager';
const mark = { Key: 'spire-svid', Value: 'true' } as const;
/** The shortest that AWS allows. */
const recoveryDays = 7;

// biome-ignore lint/suspicious/noExplicitAny: the SDK's own messages; each is looked into where it is read.
type Answer = any;
/** What is used of the SDK. */
interface Sdk {
  SecretsManagerClient: new (
    config: object,
  ) => { send(command: object, options: object): Promise<Answer>; destroy(): void };
  [command: `${string}Command`]: new (input: object) => object;
}

interface AwsSecret extends Place {
  readonly secretName: string | undefined;
  readonly kmsKeyId: string | undefined;
}

/** Opens the store. Throws `config/invalid` when the SDK is missing. */
export async function awsSecretsManager(
  options: AwsSecretsManagerOptions,
  load: LoadPackage,
): Promise<SvidStore<AwsSecret>> {
  const sdk = await loadOptional<Sdk>(load, packageName, 'svidStores.awsSecretsManager');
  const client = new sdk.SecretsManagerClient({
    region: options.region,
    maxAttempts: 2,
    ...(options.endpoint !== undefined && { endpoint: options.endpoint }),
  });
  const send = (command: string, input: object, abortSignal: AbortSignal): Promise<Answer> =>
    client.send(new sdk[`${command}Command`]!(input), { abortSignal }).catch((error: unknown) => {
      throw failure(error, command);
    });
  /** The secret, ours; undefined when there is none. */
  const describe = async (SecretId: string, signal: AbortSignal): Promise<Answer> => {
    const found = await client
      .send(new sdk.DescribeSecretCommand!({ SecretId }), { abortSignal: signal })
      .catch((error: unknown) => {
        if ((error as Error).name === 'ResourceNotFoundException') return undefined;
        throw failure(error, 'DescribeSecret');
      });
    if (found === undefined) return undefined;
    const tags = (found.Tags ?? []) as { Key?: string; Value?: string }[];
    if (tags.some(({ Key, Value }) => Key === mark.Key && Value === mark.Value)) return found;
    throw foreign(SecretId, `${mark.Key}=${mark.Value} among its tags`);
  };

  return {
    name: 'aws_secretsmanager',
    place(settings) {
      const secretName = settings.optional('secretname');
      const key = settings.optional('arn') ?? secretName;
      if (key === undefined) return settings.required('secretname') as never;
      return { key, secretName, kmsKeyId: settings.optional('kmskeyid') };
    },
    async put({ key, secretName, kmsKeyId }, secret, signal) {
      const SecretBinary = Buffer.from(printSecret(secret));
      const found = await describe(key, signal);
      if (found === undefined) {
        // A secret cannot be made by its ARN, half of which AWS invents.
        if (secretName === undefined)
          throw wrong(`aws_secretsmanager:arn:${key}`, 'no such secret; with a secretname one would be made');
        const input = { Name: secretName, Tags: [mark], SecretBinary, ...(kmsKeyId && { KmsKeyId: kmsKeyId }) };
        await send('CreateSecret', input, signal);
        return;
      }
      const SecretId = found.ARN ?? key;
      if (found.DeletedDate !== undefined) await send('RestoreSecret', { SecretId }, signal);
      await send('PutSecretValue', { SecretId, SecretBinary }, signal);
    },
    async remove({ key }, signal) {
      const found = await describe(key, signal);
      if (found === undefined || found.DeletedDate !== undefined) return;
      await send('DeleteSecret', { SecretId: found.ARN ?? key, RecoveryWindowInDays: recoveryDays }, signal);
    },
    close: () => client.destroy(),
  };
}

/** What the SDK threw: an answer has a status, a connection that failed has none. */
function failure(error: unknown, command: string): Error {
  const { name: code, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
  const status = $metadata?.httpStatusCode;
  const detail = `${code}: ${message}`;
  if (status === undefined || status >= 500 || code === 'ThrottlingException') return storeUnreachable(name, detail);
  return storeRefused(name, command, detail);
}
