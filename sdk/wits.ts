/**
 * For a workload: its WIT-SVIDs and the bundles it may trust, kept current by the agent of its node. A connection that
 * breaks is made anew; an agent that has no WIT-SVIDs ends it for good (WA-4).
 */

import { jwkSigner } from '../src/crypto/jwk-signer.ts';
import { Fault, quote, Status } from '../src/errors.ts';
import { type Channel, connectUnix } from '../src/rpc/connect.ts';
import { backoffDelay } from '../src/run/backoff.ts';
import { type Clock, sleep, systemClock } from '../src/run/clock.ts';
import { type Random, systemRandom } from '../src/run/random.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import { parseWitKeySet } from '../src/spiffe/bundle-jwks.ts';
import { parseId, type SpiffeId, type TrustDomain, trustDomainOf } from '../src/spiffe/id.ts';
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
const patience = { first: 1000, most: 30_000, factor: 2 };

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

  const follow = (method: string, take: (message: any) => void) => {
    const { promise: first, resolve, reject } = Promise.withResolvers<void>();
    const run = async (): Promise<void> => {
      for (let failures = 1; ; failures++) {
        try {
          for await (const message of stream(channel, method, both)) {
            take(message);
            failures = 0;
            resolve();
          }
        } catch (error) {
          both.throwIfAborted();
          if (!isPassing(error)) throw error;
        }
        await sleep(clock, backoffDelay(patience, Math.max(failures, 1), random.unit()), both);
      }
    };
    const ended = run();
    ended.catch(reject);
    return { first, ended };
  };
  const following = [
    follow('FetchWITSVID', ({ svids: all }) => {
      svids = all.map(({ spiffe_id, wit_svid, wit_svid_key, hint }: any) => ({
        id: parseId(spiffe_id),
        token: wit_svid,
        key: wit_svid_key,
        hint,
      }));
    }),
    follow('FetchWITBundles', (message) => {
      const named = Object.entries<string>(message.bundles).map(([name, text]) => {
        const domain = trustDomainOf(parseId(name));
        return [domain, parseWitKeySet(text, domain)] as const;
      });
      bundles = new Map(named);
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

const stream = (channel: Channel, method: string, signal: AbortSignal): AsyncIterable<any> =>
  channel.stream(service, method, {}, { metadata, signal });

/** What time may heal: the agent is away, or has no identity for this process yet. */
function isPassing(error: unknown): boolean {
  if (!(error instanceof Fault)) return false;
  return [Status.UNAVAILABLE, Status.PERMISSION_DENIED, Status.RESOURCE_EXHAUSTED].includes(error.status as never);
}
