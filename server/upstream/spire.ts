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
import { serverId, type TrustDomain, trustDomainOf } from '../../src/spiffe/id.ts';
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

  /** Those of our trust domain, the one that was taken last before others. */
  async function identities(signal: AbortSignal): Promise<readonly X509Identity[]> {
    const all = await source.current(signal);
    const own = all.filter(({ id }) => trustDomainOf(id) === trustDomain);
    if (own.length > 0) return own.toSorted((one, other) => rank(one) - rank(other));
    throw new Fault(
      'upstream/refused',
      `the agent at ${quote(workloadApiSocket)} gives ${quote(all[0]!.id)}, which is of another trust domain than ${quote(trustDomain)}`,
      { hint: 'A server and the one above it are of one trust domain: name an agent of that one.' },
    );
  }
  const rank = ({ id }: X509Identity): number => (id === shown?.id ? 0 : 1);

  /** A process may have several identities there; which of them is that of a server below is for the server above to say. */
  async function call(service: string, method: string, request: object, signal: AbortSignal): Promise<unknown> {
    const mine = await identities(signal);
    for (const identity of mine) {
      try {
        return await callAs(identity, service, method, request, signal);
      } catch (error) {
        const fault = asFault(error);
        if (fault.status !== Status.PERMISSION_DENIED) throw explained(fault, at);
      }
    }
    throw new Fault(
      'upstream/refused',
      `the upstream server at ${at} lets ${mine.map(({ id }) => quote(id)).join(' and ')} have no authority`,
      { hint: 'Mark the entry of this server there as downstream: mutual entry update --downstream.' },
    );
  }

  async function callAs(
    identity: X509Identity,
    service: string,
    method: string,
    request: object,
    signal: AbortSignal,
  ): Promise<unknown> {
    // A server knows its caller by the certificate of the handshake.
    if (shown !== identity) {
      const isFirst = shown === undefined;
      shown = identity;
      if (!isFirst) channel.reconnect();
    }
    try {
      return await channel.unary(service, method, request, { signal });
    } catch (error) {
      // Another call has taken a new connection while this one waited for the old.
      if (shown === identity || asFault(error).status !== Status.UNAVAILABLE) throw error;
      return channel.unary(service, method, request, { signal });
    }
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
    at,
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
      const { x509Authorities, jwtAuthorities, witAuthorities } = await bundle(signal);
      // A server that knows no keys of this kind says nothing of them.
      return { x509Authorities, jwtAuthorities, ...(witAuthorities.length > 0 && { witAuthorities }) };
    },
    async publish(kind, key, signal) {
      const [method, asked, given] =
        kind === 'jwt'
          ? (['PublishJWTAuthority', 'jwt_authority', 'jwt_authorities'] as const)
          : (['PublishWITAuthority', 'wit_authority', 'wit_authorities'] as const);
      const answer = await call(bundleApi, method, { [asked]: jwtKeyToWire(key) }, signal).catch((error: unknown) => {
        if (kind === 'wit' && asFault(error).status === Status.UNIMPLEMENTED) return undefined;
        throw error;
      });
      if (answer === undefined) return undefined;
      return (answer as { [given: string]: WireJwtKey[] })[given]!.map((one) => jwtKeyFromWire(one, trustDomain));
    },
    close() {
      source.close();
      channel.close();
    },
  };
}

/** What a server above refuses stays refused; what may be better in a while is `upstream/unavailable`, as the caller makes it. */
function explained(fault: Fault, at: string): Fault {
  const extras = { cause: fault, ...(fault.detail !== undefined && { detail: fault.detail }) };
  if (fault.code === 'peer/untrusted') {
    const what = `the upstream server at ${at} is not the one it should be: ${fault.message}`;
    return new Fault('upstream/refused', what, extras);
  }
  const isRefusal =
    fault.status === Status.INVALID_ARGUMENT ||
    fault.status === Status.FAILED_PRECONDITION ||
    fault.status === Status.UNIMPLEMENTED;
  if (!isRefusal) return fault;
  const { status } = fault;
  return new Fault('upstream/refused', `the upstream server at ${at} refuses: ${fault.message}`, { ...extras, status });
}
