/**
 * Upstream `spire`: another SPIFFE server of the same trust domain, Go's or ours, signs our authority and holds the bundle
 * of the whole tree. We come to it with the SVID of an entry marked `downstream`, which an agent of its own gives us.
 */
import type { HostPort } from '../../src/config/kinds.ts';
import { asFault, Fault, quote, Status } from '../../src/errors.ts';
import { type Channel, connectTls } from '../../src/rpc/connect.ts';
import { type X509Identity, x509Source } from '../../src/rpc/x509-source.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { type SpiffeId, serverId, type TrustDomain, trustDomainOf } from '../../src/spiffe/id.ts';
import { bundleFromWire, jwtKeyFromWire, jwtKeyToWire, type WireJwtKey } from '../../src/wire/bundle.ts';
import type { Upstream } from './upstream.ts';

export interface SpireUpstreamOptions {
  readonly server: HostPort;
  /** Path of the Workload API of an agent below that server. */
  readonly workloadApiSocket: string;
}

export interface SpireUpstreamPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly trustDomain: TrustDomain;
  /** See `TlsTarget.requirePostQuantum`. */
  readonly requirePostQuantum?: boolean;
}

const svidApi = 'spire.api.server.svid.v1.SVID';
const bundleApi = 'spire.api.server.bundle.v1.Bundle';
const mostSeconds = 2 ** 31 - 1;

export function spireUpstream(options: SpireUpstreamOptions, ports: SpireUpstreamPorts): Upstream {
  const { server, workloadApiSocket } = options;
  const { clock, random, trustDomain, requirePostQuantum } = ports;
  const at = `${server.host}:${server.port}`;
  const source = x509Source(workloadApiSocket, { clock, random });
  let shown: X509Identity | undefined;
  const channel: Channel = connectTls({
    ...server,
    trustDomain,
    expect: serverId(trustDomain),
    bundle: () => shown?.authorities ?? [],
    svid: () => shown,
    requirePostQuantum,
    clock,
  });

  /** With each new SVID a new connection: a server knows its caller by the certificate of the handshake. */
  function show(identity: X509Identity): void {
    if (shown === identity) return;
    const isFirst = shown === undefined;
    shown = identity;
    if (!isFirst) channel.reconnect();
  }
  source.onChange((identity) => {
    if (trustDomainOf(identity.id) === trustDomain) show(identity);
  });

  async function call(service: string, method: string, request: object, signal: AbortSignal): Promise<unknown> {
    const identity = await source.current(signal);
    if (trustDomainOf(identity.id) !== trustDomain) {
      throw new Fault(
        'upstream/refused',
        `the agent at ${quote(workloadApiSocket)} gives ${quote(identity.id)}, which is of another trust domain than ${quote(trustDomain)}`,
        { hint: 'A server and the one above it are of one trust domain: name an agent of that one.' },
      );
    }
    show(identity);
    return channel.unary(service, method, request, { signal }).catch((error: unknown) => {
      throw explained(asFault(error), identity.id, at);
    });
  }

  async function bundle(signal: AbortSignal): Promise<Bundle> {
    const held = bundleFromWire(
      (await call(bundleApi, 'GetBundle', {}, signal)) as Parameters<typeof bundleFromWire>[0],
    );
    if (held.trustDomain === trustDomain) return held;
    throw new Fault(
      'upstream/refused',
      `the upstream server at ${at} gave a bundle of trust domain ${quote(held.trustDomain)}, not of ${quote(trustDomain)}`,
    );
  }

  return {
    name: 'spire',
    async mint(csr, ttl, signal) {
      const preferred_ttl = Math.min(Math.max(Math.floor(ttl / 1000), 1), mostSeconds);
      const answer = (await call(svidApi, 'NewDownstreamX509CA', { csr, preferred_ttl }, signal)) as {
        ca_cert_chain: Buffer[];
      };
      // The roots of this answer do not say which of them are tainted; the bundle does.
      const { x509Authorities } = await bundle(signal);
      return { chain: answer.ca_cert_chain, roots: x509Authorities };
    },
    async state(signal) {
      const { x509Authorities, jwtAuthorities } = await bundle(signal);
      return { x509Authorities, jwtAuthorities };
    },
    async publish(kind, key, signal) {
      const [method, asked, given] =
        kind === 'jwt'
          ? (['PublishJWTAuthority', 'jwt_authority', 'jwt_authorities'] as const)
          : (['PublishWITAuthority', 'wit_authority', 'wit_authorities'] as const);
      const answer = await call(bundleApi, method, { [asked]: jwtKeyToWire(key) }, signal);
      return (answer as { [given: string]: WireJwtKey[] })[given]!.map((one) => jwtKeyFromWire(one, trustDomain));
    },
    close() {
      source.close();
      channel.close();
    },
  };
}

/** What a server above refuses stays refused; what may be better in a while is `upstream/unavailable`, as the caller makes it. */
function explained(fault: Fault, id: SpiffeId, at: string): Fault {
  const extras = { cause: fault, ...(fault.detail !== undefined && { detail: fault.detail }) };
  if (fault.status === Status.PERMISSION_DENIED) {
    return new Fault('upstream/refused', `the upstream server at ${at} lets ${quote(id)} have no authority`, {
      ...extras,
      hint: 'Mark its entry there as downstream: mutual entry update --downstream.',
    });
  }
  if (fault.code === 'peer/untrusted')
    return new Fault(
      'upstream/refused',
      `the upstream server at ${at} is not the one it should be: ${fault.message}`,
      extras,
    );
  const isRefusal =
    fault.status === Status.INVALID_ARGUMENT ||
    fault.status === Status.FAILED_PRECONDITION ||
    fault.status === Status.UNIMPLEMENTED;
  return isRefusal
    ? new Fault('upstream/refused', `the upstream server at ${at} refuses: ${fault.message}`, extras)
    : fault;
}
