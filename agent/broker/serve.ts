/**
 * The SPIFFE Broker Endpoint: mutual TLS with SVIDs on a Unix socket, on the network, or on both. Who calls is proved by the
 * handshake and looked at again at every message; what a broker may do stands in the configuration.
 */
import { createPrivateKey } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';
import { Fault } from '../../src/errors.ts';
import { tlsLimits, unixLimits } from '../../src/rpc/limits.ts';
import {
  type Call,
  type Limits,
  type ServeOptions,
  type Serving,
  serveTls,
  type TlsPlace,
} from '../../src/rpc/serve.ts';
import { type Live, live } from '../../src/run/live.ts';
import { isMemberOf, type SpiffeId, trustDomainOf } from '../../src/spiffe/id.ts';
import { type VerifiedX509Svid, verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import { secureContextOptions } from '../../src/tls/credentials.ts';
import { type BrokerPorts, brokerApi } from '../api/broker.ts';
import type { AgentOptions } from '../config.ts';
import type { NodeRecord } from '../state.ts';
import { brokerLimits } from './limits.ts';
import { brokerRights, type Place } from './rights.ts';

type Options = NonNullable<AgentOptions['broker']>;

export interface EndpointPorts extends Omit<BrokerPorts, 'rights' | 'profiles' | 'brokerOf'> {
  readonly requirePostQuantum: boolean;
  /** The agent's own SVID, which is shown to brokers: now, and told of each change. */
  current(): NodeRecord | undefined;
  readonly node: Live<unknown>;
  readonly onDone: NonNullable<ServeOptions['onDone']>;
  readonly onRefused: NonNullable<ServeOptions['onRefused']>;
}

const header = 'broker.spiffe.io';
const svidExpired = new Fault('caller/unauthenticated', 'the SVID with which this connection was made has expired', {
  hint: 'Connect again, with a new one.',
});

/** The requests are small: a reference, and audiences. A broker of a whole node has a few streams for each of its pods. */
const limits: Readonly<Record<Place, Limits>> = {
  socket: {
    ...unixLimits,
    streams: 4_096,
    messageBytes: 256 << 10,
    handshakeMs: 10_000,
    idleMs: 60_000,
  },
  network: { ...tlsLimits, streams: 4_096, messageBytes: 256 << 10, idleMs: 60_000 },
};

/** Serves wherever the options say. Resolves when all of it is served; nothing is when it throws. */
export async function serveBroker(
  options: Options,
  ports: EndpointPorts,
): Promise<{ close(graceMs: number): Promise<void>; readonly addresses: readonly string[] }> {
  const { cache, clock } = ports;
  const rights = brokerRights(options);
  const calls = brokerLimits(options, clock);
  const context = live(contextOf(ports.current()));
  let shown = ports.current();
  const unfollow = ports.node.onChange(() => {
    const node = ports.current();
    if (node === undefined || node === shown) return;
    shown = node;
    context.set(contextOf(node));
  });

  const verify = (chain: readonly Buffer[]): VerifiedX509Svid => {
    const svid = verifyX509Svid(chain, (domain) => cache.bundles.get(domain), clock.now());
    if (isMemberOf(svid.id, cache.trustDomain)) cache.revocations.value.check(svid.path);
    return svid;
  };
  const brokerOf = whoCalls(ports, verify);

  const serve = (at: TlsPlace, place: Place): Promise<Serving> =>
    serveTls({
      at,
      context,
      requirePostQuantum: ports.requirePostQuantum,
      verifyClient: verify,
      admit: ({ svid }) => calls.admit(svid !== undefined && rights.isBroker(svid.id, place) ? svid.id : undefined),
      endsWithSvid: svidExpired,
      limits: limits[place],
      clock,
      reflection: true,
      services: [brokerApi({ ...ports, rights, profiles: options.profiles, brokerOf }, place)],
      guard(call) {
        if (call.metadata(header) !== 'true') {
          throw new Fault('input/invalid', 'security header missing from request', {
            hint: `Send the metadata "${header}: true".`,
          });
        }
        const broker = brokerOf(call);
        rights.requireBroker(broker, place);
        calls.begin(broker, call);
      },
      onDone(call, fault, ms) {
        calls.end(call);
        ports.onDone(call, fault, ms);
      },
      onRefused: ports.onRefused,
    });

  const served: Serving[] = [];
  const close = async (graceMs: number): Promise<void> => {
    unfollow();
    await Promise.all(served.map((one) => one.close(graceMs)));
  };
  try {
    if (options.socket !== undefined) {
      served.push(await serve({ path: options.socket, mode: options.socketMode }, 'socket'));
    }
    if (options.listen !== undefined) served.push(await serve(options.listen, 'network'));
  } catch (error) {
    await close(0);
    throw error;
  }
  return { close, addresses: served.map(({ address }) => address) };
}

/**
 * The ID that the caller has proved. Its certificate is verified anew when what it was verified by has changed: an authority
 * that is gone or a certificate that is revoked ends what was begun with it.
 */
function whoCalls({ cache }: EndpointPorts, verify: (chain: readonly Buffer[]) => unknown): (call: Call) => SpiffeId {
  const verified = new WeakMap<object, readonly unknown[]>();
  return ({ caller }) => {
    if (caller.kind !== 'tls' || caller.svid === undefined) {
      throw new Fault('caller/unauthenticated', 'the caller has shown no SVID', {
        hint: 'Connect with the X509-SVID of the broker, from the Workload API.',
      });
    }
    const { id } = caller.svid;
    const by = [cache.bundles.get(trustDomainOf(id)), cache.revocations.value];
    const before = verified.get(caller);
    if (before !== undefined && by.every((one, index) => one === before[index])) return id;
    try {
      verify(caller.chain);
    } catch (error) {
      throw new Fault('caller/unauthenticated', 'the SVID of the caller does not hold any more', {
        hint: 'Connect again with a new one.',
        detail: String(error),
        cause: error,
      });
    }
    verified.set(caller, by);
    return id;
  };
}

/** Before the agent has an SVID no handshake succeeds, and brokers come again. */
function contextOf(node: NodeRecord | undefined): SecureContextOptions {
  if (node === undefined) return {};
  return secureContextOptions({
    chain: node.chain,
    key: createPrivateKey({ key: node.pkcs8, format: 'der', type: 'pkcs8' }),
  });
}
