/**
 * A session with Vault or OpenBao: logged in by token, AppRole, certificate or Kubernetes, its token renewed in time and
 * replaced by a new login when it cannot be. A call that is refused because the token has ended logs in once and is made again.
 */
import { Fault } from '../errors.ts';
import { type Backoff, backoffDelay } from '../run/backoff.ts';
import { type JsonClient, jsonClient } from './json-client.ts';
import type { VaultOptions } from './options.ts';
import { garbled, type RemotePorts, refused, unreachable } from './remote-keys.ts';
import { readFileOf, readSecret, readSecretFile } from './secret-file.ts';

export interface VaultAnswer {
  readonly status: number;
  /** The member `data` of the answer; empty when there is none. */
  readonly data: { readonly [name: string]: unknown };
}

/** How failures are told, for what the session is needed for: a store of keys, or an authority. */
export interface VaultWords {
  /** Where its options are: `keys.vault`. */
  readonly section: string;
  /** For the log: `key store`. */
  readonly what: string;
  unreachable(detail: unknown, why?: string): Fault;
  refused(doing: string, detail: unknown): Fault;
  garbled(what: string, detail?: unknown): Fault;
}

/** Of a store of keys. */
export const keyStoreWords: VaultWords = {
  section: 'keys.vault',
  what: 'key store',
  unreachable: (detail, why) => unreachable('Vault', detail, why),
  refused: (doing, detail) => refused('Vault', doing, detail),
  garbled: (what, detail) => garbled('Vault', what, detail),
};

export interface VaultSession {
  /**
   * Calls `/v1/<path>`. Gives the answer for 2xx and 404; throws in the session's words for everything else.
   * @param method GET, POST, DELETE, or LIST, which is sent as a GET that every proxy knows
   * @param doing for messages: `signing`
   */
  call(method: string, path: string, doing: string, body?: object, signal?: AbortSignal): Promise<VaultAnswer>;
  close(): void;
}

interface Token {
  readonly value: string;
  /** Unix milliseconds; undefined for one without an end. */
  readonly ends: number | undefined;
  /** How long it was given for, milliseconds. */
  readonly lease: number;
  readonly renewable: boolean;
}

const backoff: Backoff = { first: 1_000, most: 60_000, factor: 2 };
/** One call of the session's own takes at most this long, milliseconds. */
const patience = 10_000;
/** A session is not logged in more often than this, milliseconds: refusals may have other reasons. */
const loginAtMostEvery = 5_000;
const defaultServiceAccountToken = '/var/run/secrets/kubernetes.io/serviceaccount/token';

/** When a token is renewed: with a third of its lease left. @returns milliseconds from now */
export function renewAfter(lease: number): number {
  return Math.max(Math.floor((lease * 2) / 3), 1_000);
}

/** Logs in. Throws `config/invalid` for what cannot be read, and in the words given for what Vault refuses. */
export async function openVault(
  options: VaultOptions,
  ports: RemotePorts,
  words: VaultWords = keyStoreWords,
): Promise<VaultSession> {
  const { clock, random, log } = ports;
  let client = await connect(options, words);
  const ended = new AbortController();
  let cancelRenewal = (): void => {};
  let lastLogin = Number.NEGATIVE_INFINITY;
  let token: Token | undefined;
  let loggingIn: Promise<void> | undefined;

  async function ask(
    method: string,
    path: string,
    body: object | undefined,
    signal: AbortSignal | undefined,
    withToken: string | undefined,
  ): Promise<{ status: number; body: { readonly [member: string]: unknown } }> {
    const headers = {
      'x-vault-request': 'true',
      ...(withToken !== undefined && { 'x-vault-token': withToken }),
      ...(options.namespace !== undefined && { 'x-vault-namespace': options.namespace }),
    };
    // A start that waits for a login has no deadline of its own, nor has a renewal.
    const late = new AbortController();
    const cancel = signal ? undefined : clock.after(patience, () => late.abort());
    const answer = await client
      .call(method === 'LIST' ? 'GET' : method, `/v1/${path}${method === 'LIST' ? '?list=true' : ''}`, {
        headers,
        body,
        signal: signal ?? AbortSignal.any([ended.signal, late.signal]),
      })
      .catch((error: unknown) => {
        if (!late.signal.aborted) throw words.unreachable(`${options.address}: ${String(error)}`);
        const within = `in ${patience / 1000} s`;
        throw words.unreachable(`${options.address}: no answer ${within}`, `does not answer ${within}`);
      })
      .finally(() => cancel?.());
    if (answer.body === undefined && answer.status !== 204 && answer.status !== 403)
      throw words.garbled(
        'something else than Vault does',
        `${options.address}: status ${answer.status}, no JSON object`,
      );
    return { status: answer.status, body: answer.body ?? {} };
  }

  /** One login at a time; whoever needs one waits for it. */
  function login(signal?: AbortSignal): Promise<void> {
    loggingIn ??= (async () => {
      lastLogin = clock.now();
      token = await obtain(signal);
      schedule(0);
    })().finally(() => {
      loggingIn = undefined;
    });
    return loggingIn;
  }

  async function obtain(signal: AbortSignal | undefined): Promise<Token> {
    if (options.login === 'token') {
      const value = await readSecret(
        { value: options.token, file: options.tokenFile },
        'token of Vault',
        `Give ${words.section}.tokenFile or ${variable(words.section, 'TOKEN')}.`,
      );
      const { status, body } = await ask('GET', 'auth/token/lookup-self', undefined, signal, value);
      if (status !== 200) throw words.refused('its token', errorsIn(body, status));
      const data = objectOf(body.data);
      return tokenOf(value, data.ttl, data.renewable);
    }
    if (options.login === 'certificate') {
      // A renewed client certificate is taken up at the next login.
      const old = client;
      client = await connect(options, words);
      old.close();
    }
    const mount =
      options.loginPath ?? { approle: 'approle', certificate: 'cert', kubernetes: 'kubernetes' }[options.login];
    const { status, body } = await ask(
      'POST',
      `auth/${mount}/login`,
      await credentials(options, words),
      signal,
      undefined,
    );
    if (status !== 200) throw words.refused(`the login by ${options.login}`, errorsIn(body, status));
    const auth = objectOf(body.auth);
    if (typeof auth.client_token !== 'string') throw words.garbled('a login without a token');
    return tokenOf(auth.client_token, auth.lease_duration, auth.renewable);
  }

  function tokenOf(value: string, seconds: unknown, renewable: unknown): Token {
    const lease = typeof seconds === 'number' && seconds > 0 ? seconds * 1000 : 0;
    return { value, lease, renewable: renewable === true, ends: lease === 0 ? undefined : clock.now() + lease };
  }

  /** Renews or logs in when two thirds of the lease are over; what fails is tried again until it works. */
  function schedule(failures: number): void {
    cancelRenewal();
    if (ended.signal.aborted || token?.ends === undefined) return;
    const wait = failures === 0 ? renewAfter(token.lease) : backoffDelay(backoff, failures, random.unit());
    cancelRenewal = clock.after(wait, () => {
      renew().then(
        () => schedule(0),
        (error: unknown) => {
          if (ended.signal.aborted) return;
          log.warn(
            {
              store: 'Vault',
              reason: (error as Error).message,
              ...(error instanceof Fault && { detail: error.detail }),
            },
            `session with the ${words.what} not renewed`,
          );
          schedule(failures + 1);
        },
      );
    });
  }

  async function renew(): Promise<void> {
    const current = token as Token;
    if (current.renewable) {
      const { status, body } = await ask('POST', 'auth/token/renew-self', {}, undefined, current.value);
      const auth = objectOf(body.auth);
      if (status === 200 && typeof auth.lease_duration === 'number') {
        const renewed = tokenOf(current.value, auth.lease_duration, auth.renewable);
        // Near its largest age a token is renewed for ever less: then a new one is due.
        if (renewed.lease * 2 >= current.lease || options.login === 'token') {
          token = renewed;
          return;
        }
      }
    }
    await login();
  }

  await login();
  return {
    async call(method, path, doing, body, signal) {
      for (let attempt = 0; ; attempt++) {
        const used = token?.value;
        const answer = await ask(method, path, body, signal, used);
        if ((answer.status >= 200 && answer.status < 300) || answer.status === 404)
          return { status: answer.status, data: objectOf(answer.body.data) };
        const said = errorsIn(answer.body, answer.status);
        if (answer.status === 403 && attempt === 0) {
          // Somebody else may have logged in meanwhile.
          if (used !== token?.value) continue;
          if (loggingIn !== undefined || clock.now() - lastLogin >= loginAtMostEvery) {
            await login(signal);
            continue;
          }
        }
        if (answer.status === 503) throw words.unreachable(said, 'is sealed or not ready');
        if (answer.status >= 500 || answer.status === 429 || answer.status === 412)
          throw words.unreachable(said, 'failed');
        throw words.refused(doing, said);
      }
    },
    close() {
      cancelRenewal();
      ended.abort(new Error('closed'));
      client.close();
    },
  };
}

async function connect(options: VaultOptions, { section }: VaultWords): Promise<JsonClient> {
  const certificate = options.login === 'certificate';
  if (certificate && (options.certificateFile === undefined || options.keyFile === undefined)) {
    throw new Fault('config/invalid', 'the certificate login to Vault has no certificate', {
      hint: `Give ${section}.certificateFile and ${section}.keyFile.`,
    });
  }
  try {
    return jsonClient(options.address, {
      ca: options.caFile === undefined ? undefined : await readFileOf(options.caFile, 'roots of Vault'),
      cert: certificate
        ? await readFileOf(options.certificateFile as string, 'client certificate for Vault')
        : undefined,
      key: certificate ? await readSecretFile(options.keyFile as string, 'client key for Vault') : undefined,
    });
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault('config/invalid', 'the certificates given for Vault cannot be used', {
      detail: String(error),
      cause: error,
    });
  }
}

/** What a login sends. Files are read at each login: they are rotated. */
async function credentials(options: VaultOptions, { section }: VaultWords): Promise<object> {
  switch (options.login) {
    case 'approle':
      if (options.roleId === undefined)
        throw new Fault('config/invalid', 'the AppRole login to Vault has no role ID', {
          hint: `Give ${section}.roleId.`,
        });
      return {
        role_id: options.roleId,
        secret_id: await readSecret(
          { value: options.secretId, file: options.secretIdFile },
          'secret ID of the AppRole',
          `Give ${section}.secretIdFile or ${variable(section, 'SECRET_ID')}.`,
        ),
      };
    case 'kubernetes':
      if (options.role === undefined)
        throw new Fault('config/invalid', 'the Kubernetes login to Vault has no role', {
          hint: `Give ${section}.role.`,
        });
      return {
        role: options.role,
        jwt: (
          await readFileOf(options.serviceAccountTokenFile ?? defaultServiceAccountToken, 'service account token')
        ).trim(),
      };
    default:
      return options.role === undefined ? {} : { name: options.role };
  }
}

/** The variable of a secret: `MUTUAL_KEYS_VAULT_TOKEN`. */
const variable = (section: string, name: string): string => `MUTUAL_${section.replace('.', '_').toUpperCase()}_${name}`;

function objectOf(value: unknown): { readonly [name: string]: unknown } {
  return typeof value === 'object' && value !== null ? (value as { [name: string]: unknown }) : {};
}

/** What Vault says is wrong: for the operator's log. */
function errorsIn(body: { readonly [name: string]: unknown }, status: number): string {
  const errors = Array.isArray(body.errors) ? body.errors.filter((one) => typeof one === 'string') : [];
  return `status ${status}${errors.length > 0 ? `: ${errors.join('; ').slice(0, 500)}` : ''}`;
}
