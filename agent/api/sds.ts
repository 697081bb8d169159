/**
 * Envoy's Secret Discovery Service, v3, on the socket of the Workload API: the caller is identified in the same way and is
 * given what it is entitled to, in Envoy's words. A caller without an identity is refused; a stream whose caller loses its
 * last one ends.
 *
 * The header of the Workload API is not asked for, as SPIRE does not: an Envoy has to be configured to send one, and what
 * it defends against, a program that is led to send a request of somebody else's making to the socket, needs HTTP/2
 * with a framed body here. Operators whose workloads could be led that far can require it.
 */
import { Fault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import type { Call, Encoded, Send, Service } from '../../src/rpc/serve.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Identities } from '../identity-sets.ts';
import { type CallerPorts, entitled } from './caller.ts';
import { type Conversation, converse } from './converse.ts';
import { sayOnce } from './say-once.ts';
import { type DeltaRequest, deltaConversation } from './sds-delta.ts';
import { caller, readNames, requireSecretType, type SdsStream, who } from './sds-request.ts';
import { everyName, type SecretNames, type SecretSource } from './sds-secrets.ts';
import { validatorFor } from './sds-validator.ts';
import { findAll, versionOf, type WorldRequest, worldConversation, worldResponse } from './sds-world.ts';

export interface SdsOptions extends SecretNames {
  /** Gives every client the plain kind of validation context, unless its node's metadata says otherwise. */
  readonly disableSpiffeCertValidation: boolean;
  readonly requireHeader: boolean;
}

export interface SdsPorts extends CallerPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly options: SdsOptions;
  readonly crls?: SecretSource['crls'];
}

const header = 'workload.spiffe.io';
/** How long FetchSecrets waits for SVIDs that are on their way, milliseconds. */
const patience = 10_000;

export function sdsApi(ports: SdsPorts): Service {
  const { cache, clock, options } = ports;
  const say = sayOnce(ports.log, clock);
  const source: SecretSource = { cache, names: options, ...(ports.crls && { crls: ports.crls }) };
  const open = async (call: Call): Promise<SdsStream> => {
    if (options.requireHeader && call.metadata(header) !== 'true') {
      throw new Fault('input/invalid', 'security header missing from request', {
        hint: `Have Envoy send it: initial_metadata: [{key: ${header}, value: "true"}] in its grpc_service.`,
      });
    }
    const identities = await entitled(call, ports);
    const { disableSpiffeCertValidation } = options;
    return { call, identities, source, disableSpiffeCertValidation, say };
  };

  const bidi =
    <Request>(make: (stream: SdsStream) => Conversation<Request>) =>
    async (requests: AsyncIterable<Request>, call: Call, send: Send): Promise<void> => {
      const stream = await open(call);
      await converse(requests, call, send, make(stream), {
        clock,
        follow: (told) => stream.identities.follow(told),
        onUnread: () => say(who(call), '', caller(call), 'SDS client does not read its answer'),
        onHeldBack: () => say(who(call), '', caller(call), 'SDS client held back: it sends requests without end'),
      });
    };

  return {
    name: 'envoy.service.secret.v3.SecretDiscoveryService',
    methods: {
      StreamSecrets: bidi<WorldRequest>(worldConversation),

      DeltaSecrets: bidi<DeltaRequest>(deltaConversation),

      async FetchSecrets(request: WorldRequest, call: Call): Promise<Encoded> {
        requireSecretType(request.type_url);
        const stream = await open(call);
        const { identities } = stream;
        const asked = readNames(request.resource_names, stream);
        const validator = validatorFor(request.node, options.disableSpiffeCertValidation);
        const look = () => findAll(asked.size === 0 ? everyName(identities, source) : asked, validator, stream);
        await changedUntil(() => identities.complete() || !look().isComing, identities, call, clock);
        const { secrets, isComing } = look();
        if (secrets.length > 0) return worldResponse(secrets, versionOf(secrets), '');
        if (isComing) {
          throw new Fault('peer/unavailable', 'no X509-SVID could be got for what is asked', {
            hint: 'Try again; the agent’s log says why.',
          });
        }
        throw new Fault('input/invalid', 'the process is not entitled to any of the resource names', {
          hint: `It is entitled to ${everyName(identities, source).slice(0, 20).join(', ')}.`,
        });
      },
    },
  };
}

/** Waits for changes until `isEnough`, or for as long as patience lasts. Rejects when the caller goes away. */
async function changedUntil(isEnough: () => boolean, identities: Identities, call: Call, clock: Clock): Promise<void> {
  if (isEnough()) return;
  const { signal } = call;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancel = clock.after(patience, resolve);
  const unfollow = identities.follow(() => {
    if (isEnough()) resolve();
  });
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    await promise;
  } finally {
    cancel();
    unfollow();
    signal.removeEventListener('abort', onAbort);
  }
}
