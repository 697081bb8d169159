/**
 * One of Google Cloud's services, over its REST API with tokens of google-auth-library (an optional package). What fails is
 * told in the words of who uses it.
 */
import { parseJsonObject } from '../crypto/json.ts';
import { Fault, quote } from '../errors.ts';
import { jsonClient } from './json-client.ts';
import { type LoadPackage, loadOptional } from './load-package.ts';
import { readSecretFile } from './secret-file.ts';

const packageName = 'google-auth-library';

// biome-ignore lint/suspicious/noExplicitAny: answers of the API; each is looked into where it is read.
type Answer = any;

type Token = string | null | undefined;
/** What is used of the package. */
interface Sdk {
  GoogleAuth: new (config: { scopes: string[] }) => { getAccessToken(): Promise<Token> };
  JWT: new (config: {
    email: unknown;
    key: unknown;
    keyId: unknown;
    scopes: string[];
  }) => {
    getAccessToken(): Promise<{ token?: Token }>;
  };
  IdentityPoolClient: new (description: object) => { scopes?: string[]; getAccessToken(): Promise<{ token?: Token }> };
}

export interface GoogleApi {
  /** The answer; undefined for 404, and for a thing that is destroyed or disabled. */
  call(method: string, path: string, doing: string, body?: object, signal?: AbortSignal): Promise<Answer>;
  close(): void;
}

export interface GoogleApiOptions {
  /** Where the service answers. */
  readonly base: string;
  /** What the tokens are for. */
  readonly scope: string;
  /** JSON of a service account or of a federated identity; without it the machine's own credentials. */
  readonly credentialsFile: string | undefined;
  /** What asks for the package, such as `keys.store gcp-kms`. */
  readonly wanted: string;
  /** It does not answer, or not now. */
  unreachable(detail: unknown, why?: string): Fault;
  /** It answered and refused. */
  refused(doing: string, detail: unknown): Fault;
  /** It answered something that Google would not. */
  garbled(what: string, detail?: unknown): Fault;
}

/** Makes the client. Throws `config/invalid` when the package is missing or the file of credentials cannot be used. */
export async function googleApi(options: GoogleApiOptions, load: LoadPackage): Promise<GoogleApi> {
  const sdk = await loadOptional<Sdk>(load, packageName, options.wanted);
  const takeToken = await credentialsOf(sdk, options.credentialsFile, options.scope);
  const client = jsonClient(options.base);
  return {
    async call(method, path, doing, body, signal) {
      const token = await takeToken().catch((error: unknown) => {
        const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
        const isAway =
          /^(E[A-Z]+|EAI_AGAIN)$/.test(String(code ?? cause?.code)) && code !== 'ENOENT' && code !== 'EACCES';
        throw isAway ? options.unreachable(error) : options.refused('the credentials', error);
      });
      const answer = await client
        .call(method, `/v1/${path}`, { headers: { authorization: `Bearer ${token}` }, body, signal })
        .catch((error: unknown) => {
          throw options.unreachable(error);
        });
      const { status } = answer;
      if (answer.body === undefined)
        throw options.garbled('something else than Google does', `status ${status}, no JSON object`);
      if (status >= 200 && status < 300) return answer.body;
      if (status === 404) return undefined;
      const said = (answer.body.error ?? {}) as { status?: unknown; message?: unknown };
      const detail = `status ${status}: ${said.status}: ${said.message}`;
      // A version that was destroyed or disabled.
      if (status === 400 && said.status === 'FAILED_PRECONDITION') return undefined;
      if (status === 429 || status >= 500) throw options.unreachable(detail, 'failed');
      throw options.refused(doing, detail);
    },
    close: () => client.close(),
  };
}

/** Tokens by the file given, of a service account or of a federated identity; else by the credentials of the machine. */
async function credentialsOf(sdk: Sdk, path: string | undefined, scope: string): Promise<() => Promise<Token>> {
  const scopes = [scope];
  if (path === undefined) {
    const auth = new sdk.GoogleAuth({ scopes });
    return () => auth.getAccessToken();
  }
  const text = await readSecretFile(path, 'credentials for Google Cloud');
  const refuse = (cause?: unknown): Fault =>
    new Fault(
      'config/invalid',
      `the file of the credentials for Google Cloud, ${quote(path)}, is neither of a service account nor of a workload identity federation`,
      { cause },
    );
  try {
    const given = parseJsonObject(text, 'it');
    if (given.type === 'service_account') {
      const { client_email: email, private_key: key, private_key_id: keyId } = given;
      const account = new sdk.JWT({ email, key, keyId, scopes });
      return async () => (await account.getAccessToken()).token;
    }
    if (given.type !== 'external_account') throw refuse();
    const federated = new sdk.IdentityPoolClient(JSON.parse(text) as object);
    federated.scopes = scopes;
    return async () => (await federated.getAccessToken()).token;
  } catch (error) {
    // What a parser says could quote the key.
    throw error instanceof Fault && error.code === 'config/invalid' ? error : refuse(error);
  }
}
