/**
 * StreamSecrets: each answer holds all that was asked for and is there, again at every change of any of it. A nonce ties
 * a reply to its answer; a version names the content, and the same content is never sent twice in a row, whether it was
 * accepted or rejected. Names that stand for nothing are left out, and an answer with nothing in it is not sent: Envoy
 * would reject it, and keeps waiting as it should without.
 */
import { messageCodec } from '../../src/rpc/load.ts';
import { type Encoded, encoded } from '../../src/rpc/serve.ts';
import { redacted } from './caller.ts';
import type { Conversation } from './converse.ts';
import {
  readNames,
  requireSecretType,
  type SdsRequest,
  type SdsStream,
  sayRejected,
  sayUnknown,
} from './sds-request.ts';
import { everyName, type Found, findSecret, type Secret, secretType } from './sds-secrets.ts';
import { hash, type Validator, validatorFor } from './sds-validator.ts';

export interface WorldRequest extends SdsRequest {
  readonly resource_names: readonly string[];
}

export function worldConversation(stream: SdsStream): Conversation<WorldRequest> {
  const { identities, source } = stream;
  let validator: Validator = validatorFor(undefined, stream.disableSpiffeCertValidation);
  /** Undefined before the first request. */
  let asked: ReadonlySet<string> | undefined;
  /** xDS: no names in the first request are all names; later, after names, they are none. */
  let isEverything = false;
  /** Names that the client has newly asked for and gets whether or not the version moves. */
  let isOwed = false;
  let sent: { version: string; nonce: string; names: readonly string[] } | undefined;
  let count = 0;

  return {
    take(request) {
      requireSecretType(request.type_url);
      if (request.node !== null) validator = validatorFor(request.node, stream.disableSpiffeCertValidation);
      // A reply to an answer which another has followed: the reply to that one will say the same or better.
      if (sent !== undefined && request.response_nonce !== '' && request.response_nonce !== sent.nonce) return;
      if (request.error_detail !== null && sent !== undefined)
        sayRejected(request.error_detail, sent.version, sent.names, stream);
      const names = readNames(request.resource_names, stream);
      const before = asked;
      asked = names;
      isEverything = names.size === 0 && (before === undefined || isEverything);
      isOwed ||= before !== undefined && [...names].some((name) => !before.has(name));
    },
    say() {
      if (identities.entries.length === 0) throw redacted();
      if (asked === undefined) return undefined;
      const secrets = findAll(isEverything ? everyName(identities, source) : asked, validator, stream).secrets;
      if (secrets.length === 0) return undefined;
      const version = versionOf(secrets);
      if (version === sent?.version && !isOwed) return undefined;
      isOwed = false;
      const nonce = String(++count);
      sent = { version, nonce, names: secrets.map(({ name }) => name) };
      return worldResponse(secrets, version, nonce);
    },
  };
}

/** What there is of these names, and whether some of it is still to come. */
export function findAll(
  names: Iterable<string>,
  validator: Validator,
  stream: SdsStream,
): { secrets: readonly Secret[]; isComing: boolean } {
  const secrets: Secret[] = [];
  const unknown: string[] = [];
  let isComing = false;
  for (const name of names) {
    const found: Found = findSecret(name, stream.identities, validator, stream.source);
    if (found === undefined) unknown.push(name);
    else if (found === 'coming') isComing = true;
    else secrets.push(found);
  }
  sayUnknown(unknown, stream);
  return { secrets, isComing };
}

export const versionOf = (secrets: readonly Secret[]): string =>
  hash(secrets.flatMap(({ name, version }) => [name, version]).sort());

/** DiscoveryResponse. Each secret is encoded as part of one once; the parts are concatenated, which is one message. */
export function worldResponse(secrets: readonly Secret[], version: string, nonce: string): Encoded {
  const head = messageCodec('envoy.service.discovery.v3.DiscoveryResponse').encode({
    version_info: version,
    type_url: secretType,
    nonce,
  });
  return encoded(Buffer.concat([head, ...secrets.map(part)]));
}

function part(secret: Secret): Buffer {
  let made = parts.get(secret);
  if (made === undefined) {
    made = messageCodec('envoy.service.discovery.v3.DiscoveryResponse').encode({
      resources: [{ type_url: secretType, value: secret.bytes }],
    });
    parts.set(secret, made);
  }
  return made;
}
const parts = new WeakMap<Secret, Buffer>();
