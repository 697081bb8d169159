/** Requests of both kinds of stream: what they may hold, and what is written of a client that rejects an answer. */
import { Fault, quote } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import type { Identities } from '../identity-sets.ts';
import type { SayOnce } from './say-once.ts';
import { type SecretSource, secretType } from './sds-secrets.ts';
import { type ClientNode, hash } from './sds-validator.ts';

/** What every request has, as the wire layer gives it. */
export interface SdsRequest {
  readonly node: ClientNode | null;
  readonly type_url: string;
  readonly response_nonce: string;
  readonly error_detail: { readonly code: number; readonly message: string } | null;
}

/** One caller's stream and what it is answered from. */
export interface SdsStream {
  readonly call: Call;
  readonly identities: Identities;
  readonly source: SecretSource;
  readonly disableSpiffeCertValidation: boolean;
  readonly say: SayOnce;
}

/** Names that one stream may ask for. */
const mostNames = 1_000;
/** The longest name that can stand for something here: a SPIFFE ID (ID-9), or what the operator configured. */
const longestName = 2_048;
/** Names written of one line in the log. */
const mostNamed = 20;

/** Istio's agent answers these from files; an Envoy that asks here for one has got the wrong socket, and is let be. */
const ofFiles = /^file-(root|cert):/;

/** SDS knows one type, which a client may leave out. Throws `input/invalid`. */
export function requireSecretType(typeUrl: string): void {
  if (typeUrl === '' || typeUrl === secretType) return;
  throw new Fault('input/invalid', `type_url is ${quote(typeUrl)}: expected ${quote(secretType)}`);
}

/** Throws `limit/exceeded` when a stream asks for too many names. */
export function requireFewNames(count: number): void {
  if (count <= mostNames) return;
  throw new Fault(
    'limit/exceeded',
    `${count} resource names are asked for on one stream; at most ${mostNames} may be`,
    {
      hint: 'Ask for fewer, or on several streams.',
    },
  );
}

/** The names without doubles and without those that can stand for nothing and are too long to be kept. */
export function readNames(names: readonly string[], stream: SdsStream): ReadonlySet<string> {
  const kept = new Set<string>();
  for (const name of names) {
    if (name === '') continue;
    if (name.length > longestName) sayUnknown([name], stream);
    else kept.add(name);
    requireFewNames(kept.size);
  }
  return kept;
}

/** Names which stand for nothing that the process may have: one line for all of them. */
export function sayUnknown(names: readonly string[], { call, identities, say }: SdsStream): void {
  const unknown = names.filter((name) => !ofFiles.test(name));
  if (unknown.length === 0) return;
  say(
    who(call),
    hash([...unknown].sort()),
    {
      ...caller(call),
      names: unknown.slice(0, mostNamed).map(quote),
      count: unknown.length,
      ids: identities.entries.slice(0, mostNamed).map(({ spiffeId }) => spiffeId),
      hint: 'Ask for one of these ids, a trust domain or a default name, or create an entry.',
    },
    'SDS names stand for nothing that the process may have',
  );
}

/** A rejected answer: written once for what it held, however often the client says so. */
export function sayRejected(
  error: NonNullable<SdsRequest['error_detail']>,
  version: string,
  names: readonly string[],
  { call, say }: SdsStream,
): void {
  say(
    who(call),
    version,
    { ...caller(call), names: names.slice(0, mostNamed).map(quote), code: error.code, why: quote(error.message) },
    'SDS client rejected its secrets',
  );
}

/** Whose doing something is: another stream or process of the same user does not make it another line. */
export const who = (call: Call): string =>
  call.caller.kind === 'unix' ? String(call.caller.peer.uid) : call.caller.address;

export const caller = (call: Call): Record<string, unknown> =>
  call.caller.kind === 'unix' ? { pid: call.caller.peer.pid, uid: call.caller.peer.uid } : {};
