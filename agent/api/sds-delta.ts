/**
 * DeltaSecrets: each answer holds what is different from what the client has. A name that stands for nothing (any more) is
 * told as removed, once; one whose SVID is still to come is not told of. What a client rejected is not sent again until it
 * changes or the client asks for it anew.
 */
import { messageCodec } from '../../src/rpc/load.ts';
import { encoded } from '../../src/rpc/serve.ts';
import { redacted } from './caller.ts';
import type { Conversation } from './converse.ts';
import {
  readNames,
  requireFewNames,
  requireSecretType,
  type SdsRequest,
  type SdsStream,
  sayRejected,
  sayUnknown,
} from './sds-request.ts';
import { everyName, findSecret, type Secret, secretType } from './sds-secrets.ts';
import { type Validator, validatorFor } from './sds-validator.ts';
import { versionOf } from './sds-world.ts';

export interface DeltaRequest extends SdsRequest {
  readonly resource_names_subscribe: readonly string[];
  readonly resource_names_unsubscribe: readonly string[];
  readonly initial_resource_versions: Readonly<Record<string, string>>;
}

const wildcard = '*';
/** What a client is known to have of a name that it was told is gone. No version is empty. */
const nothing = '';

export function deltaConversation(stream: SdsStream): Conversation<DeltaRequest> {
  const { identities, source } = stream;
  let validator: Validator = validatorFor(undefined, stream.disableSpiffeCertValidation);
  let isFirst = true;
  let isEverything = false;
  const asked = new Set<string>();
  /** By name, the version the client has, or `nothing`. */
  const has = new Map<string, string>();
  /** What the last answers held, by nonce; a client replies to one before long. */
  const sent = new Map<string, { version: string; names: readonly string[] }>();
  let count = 0;

  const begin = (request: DeltaRequest): void => {
    isFirst = false;
    isEverything = request.resource_names_subscribe.length === 0;
    const known = Object.entries(request.initial_resource_versions);
    requireFewNames(known.length);
    for (const [name, version] of known) if (version !== nothing) has.set(name, version);
  };

  return {
    take(request) {
      requireSecretType(request.type_url);
      if (request.node !== null) validator = validatorFor(request.node, stream.disableSpiffeCertValidation);
      const rejected = sent.get(request.response_nonce);
      if (request.error_detail !== null && rejected !== undefined)
        sayRejected(request.error_detail, rejected.version, rejected.names, stream);
      sent.delete(request.response_nonce);

      const fresh = isFirst;
      if (isFirst) begin(request);
      for (const name of request.resource_names_unsubscribe) {
        if (name === wildcard) isEverything = false;
        asked.delete(name);
        // With everything still asked for, the client has let go of it and is told of it again.
        has.delete(name);
      }
      for (const name of readNames(request.resource_names_subscribe, stream)) {
        if (name === wildcard) {
          isEverything = true;
          continue;
        }
        asked.add(name);
        // Asked for anew it is sent anew, except that a client which comes back says what it still has.
        if (!fresh) has.delete(name);
      }
      requireFewNames(asked.size);
      if (!isEverything) for (const name of has.keys()) if (!asked.has(name)) has.delete(name);
    },
    say() {
      if (identities.entries.length === 0) throw redacted();
      if (isFirst) return undefined;
      const resources: Secret[] = [];
      const removed: string[] = [];
      const names = new Set(isEverything ? [...everyName(identities, source), ...asked] : asked);
      for (const name of names) {
        const found = findSecret(name, identities, validator, source);
        if (found === 'coming') continue;
        if (found === undefined) {
          if (has.get(name) === nothing) continue;
          has.set(name, nothing);
          removed.push(name);
        } else if (has.get(name) !== found.version) {
          has.set(name, found.version);
          resources.push(found);
        }
      }
      sayUnknown(removed, stream);
      for (const name of has.keys()) {
        if (names.has(name)) continue;
        has.delete(name);
        removed.push(name);
      }
      if (resources.length === 0 && removed.length === 0) return undefined;
      const nonce = String(++count);
      const version = versionOf(resources);
      sent.set(nonce, { version, names: resources.map(({ name }) => name) });
      if (sent.size > mostUnanswered) sent.delete(sent.keys().next().value as string);
      const head = messageCodec('envoy.service.discovery.v3.DeltaDiscoveryResponse').encode({
        system_version_info: version,
        type_url: secretType,
        nonce,
        removed_resources: removed,
      });
      return encoded(Buffer.concat([head, ...resources.map(part)]));
    },
  };
}

/** Answers that may be waiting for a reply; a reply to an older one is not matched with it any more. */
const mostUnanswered = 16;

function part(secret: Secret): Buffer {
  let made = parts.get(secret);
  if (made === undefined) {
    const { name, version, bytes } = secret;
    made = messageCodec('envoy.service.discovery.v3.DeltaDiscoveryResponse').encode({
      resources: [{ name, version, resource: { type_url: secretType, value: bytes } }],
    });
    parts.set(secret, made);
  }
  return made;
}
const parts = new WeakMap<Secret, Buffer>();
