/**
 * A broker's side of the SPIFFE Broker API: it comes with the SVID that it has from the Workload API and keeps fresh, knows
 * which agent it expects, follows each workload by itself, and does after a failure what the standard asks of a client.
 */
import { createPrivateKey } from 'node:crypto';
import { asFault, Fault, Status } from '../src/errors.ts';
import type { Channel } from '../src/rpc/connect.ts';
import { backoffDelay } from '../src/run/backoff.ts';
import { sleep } from '../src/run/clock.ts';
import { follow } from '../src/run/follow.ts';
import { type SpiffeId, trustDomainOf } from '../src/spiffe/id.ts';
import type { BrokerEndpoint } from './broker-endpoint.ts';
import type { Message } from './caller.ts';
import type { Ports } from './ports.ts';
import { svidParts, withWorkload } from './workload.ts';

export interface BrokerOptions {
  readonly endpoint: BrokerEndpoint;
  /** The one agent that is believed. */
  readonly agentId: SpiffeId;
  /** The Workload API. */
  readonly socket: string | undefined;
  /** As whom to come; without it the default identity. */
  readonly as: SpiffeId | undefined;
}

export interface BrokerSession {
  readonly channel: Channel;
  /** How often the own SVID was another. */
  readonly renewals: number;
  /** Resolves when it has been another than `renewals` says more than `seen` times. */
  renewed(seen: number): Promise<void>;
}

/** Told of one workload. */
export interface Sink {
  /** The whole state. */
  update(message: Message): Promise<void>;
  /** Nothing that was handed out counts any more. */
  erase(why: Fault): Promise<void>;
  failed(why: Fault): void;
}

const service = 'spiffe.broker.API';
const metadata = { 'broker.spiffe.io': 'true' };
const patience = { first: 1_000, most: 30_000, factor: 2 };

/** What a client does after a failure. `erase`: what it holds of that workload, and of no other, is void. */
export interface Consequence {
  readonly next: 'stop' | 'later' | 'renew';
  readonly erase: boolean;
}

/** SPIFFE Broker Endpoint §6, SPIFFE Broker API §4.8 and 4.9; by the status alone where there is no detail. */
export function afterFailure(fault: Fault): Consequence {
  if (fault.code === 'peer/untrusted') return { next: 'stop', erase: false };
  switch (fault.status) {
    case Status.INVALID_ARGUMENT:
    case Status.UNIMPLEMENTED:
      return { next: 'stop', erase: false };
    case Status.NOT_FOUND:
      return { next: 'stop', erase: true };
    case Status.PERMISSION_DENIED:
      // An entry may come; a broker that has no right will not get it by asking.
      return { next: fault.info?.reason === 'WORKLOAD_NOT_ENTITLED' ? 'later' : 'stop', erase: true };
    case Status.UNAUTHENTICATED:
      return { next: 'renew', erase: false };
    default:
      return { next: 'later', erase: false };
  }
}

/**
 * Opens a session and does work in it. The own SVID is followed until the work is done, also through a restart of the agent.
 * @param work is given ports whose `stop` is also aborted when the session ends
 */
export function withBroker<T>(
  options: BrokerOptions,
  ports: Ports,
  work: (session: BrokerSession, ports: Ports) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const within: Ports = { ...ports, stop: AbortSignal.any([ports.stop, over.signal]) };
  return withWorkload(options.socket, within, async (workload) => {
    const { connectTls } = await import('../src/rpc/connect.ts');
    let svid: OwnSvid | undefined;
    let renewals = 0;
    let renewed = Promise.withResolvers<void>();
    const channel = connectTls({
      ...options.endpoint,
      trustDomain: trustDomainOf(options.agentId),
      expect: options.agentId,
      bundle: () => svid?.roots ?? [],
      svid: () => svid,
      clock: ports.clock,
    });
    const keepFresh = (): Promise<never> =>
      follow<Message>({
        open: () => workload.stream('FetchX509SVID', {}),
        take(message) {
          svid = ownSvid(message, options.as);
          renewals += 1;
          channel.reconnect();
          renewed.resolve();
          renewed = Promise.withResolvers();
        },
        ended(error) {
          if (svid === undefined && error !== undefined) throw error;
        },
        backoff: patience,
        clock: ports.clock,
        random: ports.random,
        signal: within.stop,
      });
    const session: BrokerSession = {
      channel,
      get renewals() {
        return renewals;
      },
      async renewed(seen) {
        while (renewals <= seen) await renewed.promise;
      },
    };
    try {
      return await Promise.race([keepFresh(), session.renewed(0).then(() => work(session, within))]);
    } finally {
      over.abort(new Error('the session is over'));
      channel.close();
    }
  });
}

interface OwnSvid {
  readonly chain: readonly Buffer[];
  readonly key: ReturnType<typeof createPrivateKey>;
  readonly roots: readonly Buffer[];
}

function ownSvid({ svids }: Message, as: SpiffeId | undefined): OwnSvid {
  const svid = as === undefined ? svids[0] : svids.find(({ spiffe_id }: Message) => spiffe_id === as);
  if (svid === undefined) throw new Fault('caller/denied', `this process has no SVID for ${as}`);
  const { chain, key, roots } = svidParts(svid);
  return { chain, roots, key: createPrivateKey({ key, format: 'der', type: 'pkcs8' }) };
}

/**
 * Follows one workload until it is over, or for one message.
 * @returns why it is over; undefined after one message
 */
export async function followWorkload({
  session,
  request,
  once,
  ports,
  sink,
}: {
  readonly session: BrokerSession;
  readonly request: object;
  readonly once: boolean;
  readonly ports: Ports;
  readonly sink: Sink;
}): Promise<Fault | undefined> {
  for (let failures = 0; ; ) {
    const seen = session.renewals;
    let fault: Fault;
    try {
      const options = { metadata, signal: ports.stop };
      for await (const message of session.channel.stream(service, 'SubscribeToX509SVID', request, options)) {
        failures = 0;
        // A message with a field missing is discarded whole, and what was before it stays (§4.6).
        if (!isWhole(message)) {
          sink.failed(new Fault('peer/failed', 'the agent sent an SVID with a mandatory field missing'));
          continue;
        }
        await sink.update(message);
        if (once) return undefined;
      }
      fault = new Fault('peer/unavailable', 'the agent ended the stream');
    } catch (error) {
      if (ports.stop.aborted) throw error;
      fault = asFault(error);
    }
    const { next, erase } = afterFailure(fault);
    if (erase) await sink.erase(fault);
    if (next === 'stop') return fault;
    sink.failed(fault);
    failures += 1;
    if (next === 'renew') await Promise.race([session.renewed(seen), stopped(ports.stop)]);
    else
      await sleep(ports.clock, fault.retryAfterMs ?? backoffDelay(patience, failures, ports.random.unit()), ports.stop);
  }
}

function isWhole({ svids }: Message): boolean {
  return (
    svids.length > 0 &&
    svids.every(
      ({ spiffe_id, x509_svid, x509_svid_key, bundle }: Message) =>
        spiffe_id !== '' && x509_svid.length > 0 && x509_svid_key.length > 0 && bundle.length > 0,
    )
  );
}

function stopped(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
