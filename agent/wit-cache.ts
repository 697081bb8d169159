/**
 * WIT-SVIDs with their keys, made for entries that somebody has a stream for and kept for whoever comes next: processes of
 * one workload on this node share them (WIT-20). Each is replaced with a new key at half life, when its entry changes, when
 * its authority is tainted, and when it is revoked. What fails is tried again later, entry by entry.
 */
import { type ClassicKeyType, classicKeyTypes, generateKeyAside } from '../src/crypto/algorithms.ts';
import { isJsonObject } from '../src/crypto/json.ts';
import { privateJwk, spkiOfJwk } from '../src/crypto/jwk.ts';
import { type DecodedJwt, decodeJwt } from '../src/crypto/jwt.ts';
import { asFault, Fault, quote, Status } from '../src/errors.ts';
import type { Log } from '../src/log.ts';
import { type Backoff, delayAfter } from '../src/run/backoff.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';
import type { SpiffeId } from '../src/spiffe/id.ts';
import { renewAt } from '../src/spiffe/lifetime.ts';
import { type AuthorizedEntry, sameRevision } from './authorized.ts';
import type { Cache } from './cache.ts';
import type { ServerLink } from './link.ts';
import type { IssuedToken } from './server-api.ts';
import { why } from './why.ts';

export interface WitSvid {
  readonly id: SpiffeId;
  readonly token: string;
  /** The private key, a JWK as JSON (WA-38). */
  readonly key: string;
  /** Which authority signed it. */
  readonly keyId: string;
  /** The `jti`, if it has one. */
  readonly tokenId: unknown;
  /** Unix milliseconds. */
  readonly issuedAt: number;
  readonly expiresAt: number;
  /** Drawn once. */
  readonly renewAt: number;
  readonly revision: number;
  readonly createdAt: number;
}

/** What one stream wants. */
export interface WitHold {
  /** From now on these entries, and no others. The very array of last time costs nothing. */
  set(entries: readonly AuthorizedEntry[]): void;
  end(): void;
}

export interface WitCache {
  readonly size: number;
  /** Begins to want SVIDs; `told` is called whenever one of them came or could not be got. */
  hold(told: () => void): WitHold;
  /** The one to serve for an entry: not expired and for its present ID. */
  svidFor(entry: AuthorizedEntry): WitSvid | undefined;
  /** Why none could be got for an entry, until one was. */
  refusal(entry: AuthorizedEntry): Fault | undefined;
  /** Whether one is served that this authority signed. */
  usesKey(keyId: string): boolean;
  /** Told when another authority's key may have come into use, or one gone out of it. */
  onUse(told: () => void): () => void;
  /** The server can be reached again: what failed is tried anew. */
  retry(): void;
  /** The clock was set, or the machine slept: what is due is looked at anew. */
  clockSet(): void;
  clear(): void;
  run(signal: AbortSignal): Promise<void>;
}

export interface WitPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly link: ServerLink;
  readonly cache: Cache;
  readonly keyType: ClassicKeyType;
  readonly availabilityTarget: number | undefined;
}

interface Wanted {
  entry: AuthorizedEntry;
  readonly told: Map<() => void, number>;
}

interface Failed {
  readonly fault: Fault;
  readonly failures: number;
  /** When the next attempt may be made, Unix milliseconds. */
  readonly until: number;
  readonly revision: number;
  readonly createdAt: number;
}

/** The server takes 500 signatures a second; keys have to be made for all of a batch first. */
const largestBatch = 100;
/** SVIDs kept that nobody has a stream for. */
const mostIdle = 1_000;
const backoff: Backoff = { first: 1_000, most: 60_000, factor: 2 };

export function makeWitCache(ports: WitPorts): WitCache {
  const { clock, random, log, link, cache, keyType } = ports;
  /** Of those that nobody wants any more, the longest unwanted stands first. */
  const svids = new Map<string, WitSvid>();
  const wanted = new Map<string, Wanted>();
  const failed = new Map<string, Failed>();
  const users = new Set<() => void>();
  let wake = (): void => {};
  let kicked = false;
  const kick = (): void => {
    kicked = true;
    wake();
  };
  cache.ownBundle.onChange(kick);
  cache.revocations.onChange(kick);
  link.onRenewed(kick);

  const want = (entry: AuthorizedEntry, told: () => void): void => {
    const one = wanted.get(entry.id);
    if (one === undefined) {
      wanted.set(entry.id, { entry, told: new Map([[told, 1]]) });
      kick();
      return;
    }
    if (!sameRevision(one.entry, entry)) kick();
    one.entry = entry;
    one.told.set(told, (one.told.get(told) ?? 0) + 1);
  };
  const unwant = (id: string, told: () => void): void => {
    const one = wanted.get(id);
    if (one === undefined) return;
    const left = (one.told.get(told) ?? 1) - 1;
    if (left > 0) one.told.set(told, left);
    else one.told.delete(told);
    if (one.told.size > 0) return;
    wanted.delete(id);
    failed.delete(id);
    for (const inUse of users) inUse();
    const svid = svids.get(id);
    if (svid === undefined) return;
    svids.delete(id);
    // Of an entry that is gone nothing is kept, least of all a key.
    if (!cache.entries.has(id)) return;
    svids.set(id, svid);
    if (svids.size - wanted.size <= mostIdle) return;
    for (const idle of svids.keys()) {
      if (wanted.has(idle)) continue;
      svids.delete(idle);
      return;
    }
  };

  /** Whether what is held has to be replaced although its time has not come. */
  const isBad = (svid: WitSvid): boolean =>
    isDenied(svid) ||
    cache.ownBundle.value.witAuthorities.some(({ keyId, tainted }) => tainted && keyId === svid.keyId);
  const isDenied = ({ id, tokenId, issuedAt }: WitSvid): boolean => {
    try {
      cache.revocations.value.tokens.check(id, { jti: tokenId, iat: issuedAt / 1000 });
      return false;
    } catch {
      return true;
    }
  };
  const failure = (entry: AuthorizedEntry): Failed | undefined => {
    const last = failed.get(entry.id);
    return last !== undefined && sameRevision(last, entry) ? last : undefined;
  };

  /** Entries to ask for now, the most urgent first, and when the next one is due. */
  const due = (): { batch: AuthorizedEntry[]; next: number } => {
    const found: { entry: AuthorizedEntry; ends: number }[] = [];
    let next = Number.POSITIVE_INFINITY;
    const now = clock.now();
    for (const { entry } of wanted.values()) {
      const svid = svids.get(entry.id);
      const isGood = svid !== undefined && svid.id === entry.spiffeId && sameRevision(svid, entry) && !isBad(svid);
      const at = Math.max(isGood ? svid.renewAt : 0, failure(entry)?.until ?? 0);
      if (at > now) next = Math.min(next, at);
      else found.push({ entry, ends: svid?.expiresAt ?? 0 });
      // An end has to be told too.
      if (svid !== undefined && svid.expiresAt > now) next = Math.min(next, svid.expiresAt);
    }
    found.sort((a, b) => a.ends - b.ends);
    return { batch: found.slice(0, largestBatch).map(({ entry }) => entry), next };
  };

  const tell = (entries: readonly AuthorizedEntry[]): void => {
    const all = new Set(entries.flatMap(({ id }) => [...(wanted.get(id)?.told.keys() ?? [])]));
    for (const told of [...all, ...users]) told();
  };

  const fail = (entry: AuthorizedEntry, error: unknown): void => {
    const fault = asFault(error);
    const failures = (failure(entry)?.failures ?? 0) + 1;
    const delay = delayAfter(fault, backoff, failures, random.unit());
    const { revision, createdAt } = entry;
    if (wanted.has(entry.id))
      failed.set(entry.id, { fault, failures, until: clock.now() + delay, revision, createdAt });
  };

  const request = async (batch: readonly AuthorizedEntry[]): Promise<void> => {
    const { jwa } = classicKeyTypes[keyType];
    const keys = await Promise.all(batch.map(() => generateKeyAside(keyType)));
    const spkis = keys.map(({ publicKey }) => publicKey.export({ format: 'der', type: 'spki' }));
    const results = await link.call((api) =>
      api.newWitSvids(batch.map(({ id }, at) => ({ entryId: id, publicKey: spkis[at]!, algorithm: jwa }))),
    );
    for (const [at, entry] of batch.entries()) {
      const result = results[at];
      try {
        if (result === undefined)
          throw new Fault('peer/unavailable', 'the server answered fewer WIT-SVIDs than asked for');
        if (result instanceof Fault) throw result;
        const { header, claims } = checked(result, entry.spiffeId, spkis[at]!);
        const { revision, createdAt } = entry;
        const life = { notBefore: result.issuedAt, notAfter: result.expiresAt };
        const svid: WitSvid = {
          ...result,
          key: JSON.stringify(privateJwk(keys[at]!.privateKey, jwa)),
          keyId: String(header.kid),
          tokenId: claims.jti,
          renewAt: renewAt(life, random.unit(), ports.availabilityTarget),
          revision,
          createdAt,
        };
        svids.set(entry.id, svid);
        // A server that goes on signing with a tainted key, or for what is revoked, is asked again later and later.
        if (isBad(svid)) fail(entry, new Fault('state/refused', 'the new WIT-SVID is of no use'));
        else failed.delete(entry.id);
      } catch (error) {
        fail(entry, error);
        log.warn({ entry: entry.id, id: entry.spiffeId, ...why(asFault(error)) }, 'WIT-SVID refused');
      }
    }
  };

  return {
    get size() {
      return svids.size;
    },
    hold(told) {
      let held: readonly AuthorizedEntry[] = [];
      const set = (entries: readonly AuthorizedEntry[]): void => {
        if (entries === held) return;
        for (const entry of entries) want(entry, told);
        for (const { id } of held) unwant(id, told);
        held = entries;
      };
      return { set, end: () => set([]) };
    },
    svidFor(entry) {
      const svid = svids.get(entry.id);
      return svid !== undefined && svid.id === entry.spiffeId && svid.expiresAt > clock.now() ? svid : undefined;
    },
    refusal: (entry) => failure(entry)?.fault,
    usesKey: (keyId) => [...wanted.keys()].some((id) => svids.get(id)?.keyId === keyId),
    onUse(told) {
      users.add(told);
      return () => users.delete(told);
    },
    retry() {
      failed.clear();
      kick();
    },
    clockSet() {
      // Until when they are not asked for was said in another time.
      failed.clear();
      // Issued while the clock was ahead: nobody will believe them before.
      for (const [id, svid] of svids) if (svid.issuedAt > clock.now()) svids.set(id, { ...svid, renewAt: 0 });
      kick();
    },
    clear() {
      svids.clear();
      failed.clear();
      kick();
    },
    async run(signal) {
      for (;;) {
        kicked = false;
        const { batch, next } = due();
        if (batch.length === 0) {
          await pause(next - clock.now(), signal);
          const now = clock.now();
          // What has ended must not be served on.
          const ended = [...wanted.values()].filter(({ entry }) => (svids.get(entry.id)?.expiresAt ?? now + 1) <= now);
          for (const { entry } of ended) svids.delete(entry.id);
          tell(ended.map(({ entry }) => entry));
          continue;
        }
        try {
          await request(batch);
        } catch (error) {
          signal.throwIfAborted();
          for (const entry of batch) fail(entry, error);
          const fault = asFault(error);
          const level = fault.status === Status.UNIMPLEMENTED ? 'debug' : 'warn';
          log[level]({ count: batch.length, ...why(fault) }, 'WIT-SVIDs not issued');
        }
        tell(batch);
      }
    },
  };

  async function pause(ms: number, signal: AbortSignal): Promise<void> {
    if (kicked) return;
    const woken = new AbortController();
    wake = () => woken.abort(new Error('woken'));
    try {
      await sleep(clock, Math.min(ms, 86_400_000), AbortSignal.any([signal, woken.signal]));
    } catch (error) {
      if (signal.aborted) throw error;
    } finally {
      wake = () => {};
    }
  }
}

/** Checks that a server issued what was asked for. Throws `svid/invalid`. */
function checked({ token, id }: IssuedToken, expected: SpiffeId, publicKey: Buffer): DecodedJwt {
  const decoded = decodeJwt(token);
  const { header, claims } = decoded;
  if (id !== expected || claims.sub !== expected)
    throw new Fault(
      'svid/invalid',
      `the server issued a WIT-SVID for ${quote(claims.sub)}, not for ${quote(expected)}`,
    );
  if (header.typ !== 'wit+jwt' || typeof header.kid !== 'string')
    throw new Fault(
      'svid/invalid',
      `the server issued something else than a WIT-SVID: its type is ${quote(header.typ)}`,
    );
  const { cnf } = claims;
  const jwk = isJsonObject(cnf) ? cnf.jwk : undefined;
  if (!isJsonObject(jwk) || !spkiOfJwk(jwk, 'the key of a WIT-SVID').equals(publicKey))
    throw new Fault('svid/invalid', `the WIT-SVID for ${quote(expected)} is for another key than was asked for`);
  return decoded;
}
