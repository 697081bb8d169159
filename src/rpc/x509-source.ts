/**
 * The identities that a Workload API gives this process, followed as they renew: one stream, opened again when it ends.
 * What was given stays in use until its own end, so that an agent may restart in between.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { type Certificate, splitCertificates } from '../crypto/certificate.ts';
import { asFault, Fault, quote, Status } from '../errors.ts';
import type { Backoff } from '../run/backoff.ts';
import { type Clock, sleep } from '../run/clock.ts';
import { follow } from '../run/follow.ts';
import type { Random } from '../run/random.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { authorityCertificate, checkLeaf } from '../spiffe/x509-svid.ts';
import { connectUnix } from './connect.ts';

/** An X.509-SVID with its key, and the authorities of its own trust domain. */
export interface X509Identity {
  readonly id: SpiffeId;
  /** DER, leaf first. */
  readonly chain: readonly Buffer[];
  readonly leaf: Certificate;
  readonly key: KeyObject;
  /** DER. */
  readonly authorities: readonly Buffer[];
}

export interface X509Source {
  /**
   * All that hold now, in the agent's order; before the first word of the agent, what that brings. Never empty. Throws why
   * there is none: `peer/unavailable`, `caller/denied` when this process has no identity there, `svid/invalid` for what
   * cannot be read or has expired.
   */
  current(signal: AbortSignal): Promise<readonly X509Identity[]>;
  close(): void;
}

/** Without it an agent refuses: it keeps a confused program from being tricked into a call (Workload Endpoint §3). */
const metadata = { 'workload.spiffe.io': 'true' };
const backoff: Backoff = { first: 500, most: 30_000, factor: 2 };

/** @param socket path of the Workload API; it is connected to when it is first needed */
export function x509Source(socket: string, { clock, random }: { clock: Clock; random: Random }): X509Source {
  const channel = connectUnix(socket);
  const ended = new AbortController();
  let held: readonly X509Identity[] = [];
  let hurry = (): void => {};
  let next = Promise.withResolvers<readonly X509Identity[]>();
  next.promise.catch(() => {});
  let isFollowing = false;

  /** Whoever waits is told how the attempt went. */
  function settle(outcome: readonly X509Identity[] | Fault): void {
    const { resolve, reject } = next;
    next = Promise.withResolvers();
    next.promise.catch(() => {});
    if (outcome instanceof Fault) {
      reject(outcome);
      return;
    }
    held = outcome;
    resolve(outcome);
  }

  /** Whoever needs an identity cuts it short. */
  async function pause(ms: number): Promise<void> {
    const woken = new AbortController();
    hurry = () => woken.abort(new Error('an identity is needed'));
    await sleep(clock, ms, AbortSignal.any([ended.signal, woken.signal])).catch(() => {});
    hurry = () => {};
    channel.reconnect();
  }

  function begin(): void {
    const { signal } = ended;
    isFollowing = true;
    follow<X509SvidResponse>({
      open: () => channel.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata, signal }),
      take: (response) => settle(identitiesIn(response, socket)),
      ended: (error) => settle(error === undefined ? streamEnded(socket) : explained(error, socket)),
      backoff,
      clock,
      random,
      signal,
      pause,
    }).catch(() => {});
  }

  return {
    async current(signal) {
      const holding = held.filter(({ leaf }) => leaf.notAfter > clock.now());
      if (holding.length > 0) return holding;
      if (held[0] !== undefined) {
        hurry();
        throw expired(held[0], socket);
      }
      signal.throwIfAborted();
      const { promise: given, reject } = Promise.withResolvers<never>();
      given.catch(() => {});
      const giveUp = (): void => reject(signal.reason);
      signal.addEventListener('abort', giveUp, { once: true });
      const { promise } = next;
      if (!isFollowing) begin();
      hurry();
      try {
        return await Promise.race([promise, given]);
      } finally {
        signal.removeEventListener('abort', giveUp);
      }
    },
    close() {
      ended.abort(new Error('closed'));
      settle(new Fault('peer/unavailable', `the Workload API at ${quote(socket)} is no longer followed`));
      channel.close();
    },
  };
}

interface X509SvidResponse {
  readonly svids: readonly { x509_svid: Buffer; x509_svid_key: Buffer; bundle: Buffer }[];
}

function identitiesIn({ svids }: X509SvidResponse, socket: string): readonly X509Identity[] {
  if (svids.length === 0) throw new Fault('svid/invalid', `the agent at ${quote(socket)} sent no X.509-SVID`);
  return svids.map(({ x509_svid, x509_svid_key, bundle }) => {
    const chain = splitCertificates(x509_svid);
    const [first] = chain;
    const leaf = first && authorityCertificate({ certificate: first, tainted: false });
    if (leaf === undefined) throw new Fault('svid/invalid', `the agent at ${quote(socket)} sent no certificate`);
    const id = checkLeaf(leaf);
    try {
      const key = createPrivateKey({ key: Buffer.from(x509_svid_key), format: 'der', type: 'pkcs8' });
      return { id, chain, leaf, key, authorities: splitCertificates(bundle) };
    } catch (cause) {
      const what = `the agent at ${quote(socket)} sent a key for ${quote(id)} that cannot be read`;
      throw new Fault('svid/invalid', what, { cause });
    }
  });
}

function expired({ id, leaf }: X509Identity, socket: string): Fault {
  const end = new Date(leaf.notAfter).toISOString();
  return new Fault(
    'svid/invalid',
    `the SVID of ${quote(id)} expired at ${end}, and the agent at ${quote(socket)} gave no new one`,
    {
      hint: 'See that the agent runs and reaches its server.',
    },
  );
}

const streamEnded = (socket: string): Fault =>
  new Fault('peer/unavailable', `the agent at ${quote(socket)} ended the stream`);

function explained(error: unknown, socket: string): Fault {
  const fault = asFault(error);
  if (fault.status !== Status.PERMISSION_DENIED) return fault;
  return new Fault('caller/denied', `the agent at ${quote(socket)} has no identity for this process`, {
    hint: 'Create an entry whose selectors fit it, below that agent.',
    cause: error,
  });
}
