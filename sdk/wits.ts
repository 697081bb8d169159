/**
 * For a workload: its WIT-SVIDs and the bundles it may trust, kept current by the agent of its node. A connection that
 * breaks is made anew; an agent that has no WIT-SVIDs ends it for good (WA-4).
 */

import { jwkSigner } from '../src/crypto/jwk-signer.ts';
import { Fault, quote, Status } from '../src/errors.ts';
import { connectUnix } from '../src/rpc/connect.ts';
import type { Backoff } from '../src/run/backoff.ts';
import { type Clock, systemClock } from '../src/run/clock.ts';
import { follow } from '../src/run/follow.ts';
import { type Random, systemRandom } from '../src/run/random.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import { parseWitBundles } from '../src/spiffe/bundle-jwks.ts';
import { parseId, type SpiffeId, type TrustDomain } from '../src/spiffe/id.ts';
import { makeWitProof, proofHeader, witHeader } from '../src/spiffe/wit-proof.ts';
import { audienceOf } from './wit-verifier.ts';

/** A WIT-SVID with its private key, a JWK as JSON. */
export interface HeldWit {
  readonly id: SpiffeId;
  readonly token: string;
  readonly key: string;
  readonly hint: string;
}

export interface Wits {
  /** All identities of this process, the default one first. */
  readonly svids: readonly HeldWit[];
  /** The bundle of a trust domain; its WIT keys alone. */
  bundleOf(trustDomain: TrustDomain): Bundle | undefined;
  /**
   * The headers for one request to an address, which has to be https (WIT-27): a token and a proof made for it.
   * @param choice another audience than the address's origin; another identity than the default one
   */
  headersFor(url: string | URL, choice?: { audience?: string; id?: SpiffeId }): Record<string, string>;
  /** Resolves after close(); rejects when the agent has no WIT-SVIDs (any more). */
  readonly closed: Promise<void>;
  close(): void;
}

export interface WitsPorts {
  readonly clock: Clock;
  readonly random: Random;
}

const service = 'SpiffeWorkloadAPI';
const metadata = { 'workload.spiffe.io': 'true' };
const backoff: Backoff = { first: 1000, most: 30_000, factor: 2 };

/**
 * Opens the Workload API at a socket's path and waits for the first SVIDs and bundles. Throws `method/unimplemented` when
 * the agent has no WIT-SVIDs, what it refused with, or the signal's reason.
 */
export async function openWits(
  socketPath: string,
  signal?: AbortSignal,
  { clock, random }: WitsPorts = { clock: systemClock, random: systemRandom },
): Promise<Wits> {
  const channel = connectUnix(socketPath);
  const stop = new AbortController();
  const both = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  let svids: readonly HeldWit[] = [];
  let bundles = new Map<TrustDomain, Bundle>();

  const keep = <Message>(method: string, take: (message: Message) => void) => {
    const { promise: first, resolve, reject } = Promise.withResolvers<void>();
    const ended = follow<Message>({
      open: () => channel.stream(service, method, {}, { metadata, signal: both }),
      take(message) {
        take(message);
        resolve();
      },
      ended(error) {
        if (error !== undefined && !isPassing(error)) throw error;
      },
      backoff,
      clock,
      random,
      signal: both,
    });
    ended.catch(reject);
    return { first, ended };
  };
  const following = [
    keep<WitSvidResponse>('FetchWITSVID', ({ svids: all }) => {
      svids = all.map(({ spiffe_id, wit_svid, wit_svid_key, hint }) => ({
        id: parseId(spiffe_id),
        token: wit_svid,
        key: wit_svid_key,
        hint,
      }));
    }),
    keep<WitBundlesResponse>('FetchWITBundles', (message) => {
      bundles = parseWitBundles(message.bundles);
    }),
  ];
  const close = (): void => {
    stop.abort(new Error('closed'));
    channel.close();
  };
  const closed = Promise.all(following.map(({ ended }) => ended)).then(
    () => {},
    (error: unknown) => {
      const isOver = both.aborted;
      close();
      if (!isOver) throw error;
    },
  );
  closed.catch(() => {});
  try {
    await Promise.all(following.map(({ first }) => first));
  } catch (error) {
    close();
    throw error;
  }
  return {
    get svids() {
      return svids;
    },
    bundleOf: (trustDomain) => bundles.get(trustDomain),
    headersFor(url, { audience = audienceOf(url), id } = {}) {
      audienceOf(url);
      const svid = id === undefined ? svids[0] : svids.find((one) => one.id === id);
      if (svid === undefined) throw new Fault('caller/denied', `this process has no WIT-SVID for ${quote(id)}`);
      const name = random.bytes(16).toString('base64url');
      const proof = makeWitProof(svid.token, jwkSigner(svid.key), audience, name, clock.now());
      return { [witHeader]: svid.token, [proofHeader]: proof };
    },
    closed,
    close,
  };
}

interface WitSvidResponse {
  readonly svids: readonly { spiffe_id: string; wit_svid: string; wit_svid_key: string; hint: string }[];
}

interface WitBundlesResponse {
  readonly bundles: Readonly<Record<string, string>>;
}

/** What time may heal: the agent is away, or has no identity for this process yet. */
function isPassing(error: unknown): boolean {
  if (!(error instanceof Fault)) return false;
  return [Status.UNAVAILABLE, Status.PERMISSION_DENIED, Status.RESOURCE_EXHAUSTED].includes(error.status as never);
}
