/**
 * A key store whose keys live in another program or device. What is particular to one is a `Remote` of a few calls; what
 * all need is here: keys found again by asking, a deadline on every call, quick refusals with backoff while the store is
 * out of reach (so that nobody queues for it), signatures checked before they are handed on, and the upkeep.
 */
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { type ClassicKeyType, classicFacts, classicKeyTypes } from '../crypto/algorithms.ts';
import { derSignature, rawSignature } from '../crypto/ecdsa-signature.ts';
import { Fault, quote } from '../errors.ts';
import { type Backoff, backoffDelay } from '../run/backoff.ts';
import type { Clock } from '../run/clock.ts';
import type { Random } from '../run/random.ts';
import type { Key, KeyStore } from './key-store.ts';
import { retryAfter, type StoredKey, upkeepDue, uselessKeys } from './upkeep.ts';

/** What a store tells the operator; the program's log fits. */
export interface KeyLog {
  info(fields: Readonly<Record<string, unknown>>, event: string): void;
  warn(fields: Readonly<Record<string, unknown>>, event: string): void;
}

export interface RemotePorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: KeyLog;
}

/** A key of a store, as its `Remote` knows it. */
export interface RemoteKey extends StoredKey {
  readonly type: ClassicKeyType;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
  /** What the store calls it. */
  readonly handle: string;
}

/**
 * The calls to one store, for one server of one trust domain. Each may throw a Fault that says all; anything else becomes
 * one through `explain`. The signal is aborted when the deadline has passed.
 */
export interface Remote {
  /** For messages: `AWS KMS`. */
  readonly name: string;
  /** The name of this server, which its keys carry. */
  readonly owner: string;
  /** The spelling of its ECDSA signatures. */
  readonly ecdsa: 'der' | 'raw';
  /** Makes a key beside whatever has the name. */
  create(id: string, type: ClassicKeyType, signal: AbortSignal): Promise<RemoteKey>;
  /** The keys of this server, older generations of a name too, where they are known. */
  list(signal: AbortSignal): Promise<readonly RemoteKey[]>;
  sign(key: RemoteKey, data: Buffer, signal: AbortSignal): Promise<Buffer>;
  /** Has the key destroyed; it may be gone already. */
  destroy(key: StoredKey & { readonly handle: string }, signal: AbortSignal): Promise<void>;
  /** The keys of the trust domain, whosever; absent where only the server's own can be known. */
  listAll?(signal: AbortSignal): Promise<readonly (StoredKey & { readonly handle: string })[]>;
  /** Marks the keys as in use now; absent where the store cannot hold that. */
  keepAlive?(keys: readonly RemoteKey[], signal: AbortSignal): Promise<void>;
  /** What an error of the store means. `unavailable` ones make the store be left alone for a while. */
  explain(error: unknown, doing: string): Fault;
  close?(): Promise<void> | void;
}

/** One call takes at most this long, milliseconds. */
const patience = 10_000;
/** Listing and upkeep are many calls. */
const longPatience = 60_000;
const backoff: Backoff = { first: 250, most: 5_000, factor: 2 };

/** The store cannot be reached or does not answer. */
export function unreachable(name: string, detail: unknown, why = 'cannot be reached'): Fault {
  return new Fault('keys/unavailable', `the key store ${name} ${why}`, {
    hint: 'See that it runs and that the server may connect to it; the log of the server has the details.',
    detail: String(detail),
    cause: detail,
  });
}

/** The store answered and refused. */
export function refused(name: string, doing: string, detail: unknown): Fault {
  return new Fault('keys/unavailable', `the key store ${name} refuses ${doing}`, {
    hint: 'See what the credentials of the server may do there; the log of the server has the answer.',
    detail: String(detail),
    cause: detail,
  });
}

/** The store answered something that it should not. */
export function garbled(name: string, what: string, detail?: unknown): Fault {
  return new Fault('keys/unavailable', `the key store ${name} answered ${what}`, {
    hint: 'See that the address given is that of the key store, and its own log.',
    ...(detail !== undefined && { detail: String(detail) }),
  });
}

/** The key is not there any more. */
export function lost(name: string, id: string, detail: unknown): Fault {
  return new Fault('keys/lost', `key ${quote(id)} is no longer in the key store ${name}`, {
    hint: 'If it was disabled, enable it again; if it was deleted, a new authority is made in its place.',
    detail: String(detail),
    cause: detail,
  });
}

export async function remoteKeys(remote: Remote, ports: RemotePorts): Promise<KeyStore> {
  const { clock, random, log } = ports;
  const { name } = remote;
  /** What names mean now. Filled by asking; a miss asks again. */
  const known = new Map<string, { stored: RemoteKey; key: Key }>();
  const ended = new AbortController();
  let outage: { fault: Fault; failures: number; until: number } | undefined;

  /** One call to the store, with a deadline; what goes wrong becomes a Fault. */
  async function call<T>(doing: string, work: (signal: AbortSignal) => Promise<T>, most = patience): Promise<T> {
    if (ended.signal.aborted) throw new Fault('keys/unavailable', `the key store ${name} is closed`);
    const late = new AbortController();
    const { promise: deadline, reject } = Promise.withResolvers<never>();
    deadline.catch(() => {});
    const cancel = clock.after(most, () => {
      const fault = unreachable(
        name,
        `no answer to ${doing} in ${most / 1000} s`,
        `does not answer in ${most / 1000} s`,
      );
      late.abort(fault);
      reject(fault);
    });
    try {
      const result = await Promise.race([work(AbortSignal.any([late.signal, ended.signal])), deadline]);
      if (outage !== undefined) log.info({ store: name, failures: outage.failures }, 'key store answers again');
      outage = undefined;
      return result;
    } catch (error) {
      const fault = error instanceof Fault ? error : remote.explain(error, doing);
      if (fault.code === 'keys/unavailable') {
        const failures = (outage?.failures ?? 0) + 1;
        if (outage === undefined)
          log.warn({ store: name, doing, reason: fault.message, detail: fault.detail }, 'key store cannot be used');
        outage = { fault, failures, until: clock.now() + backoffDelay(backoff, failures, random.unit()) };
      }
      throw fault;
    } finally {
      cancel();
    }
  }

  /** While the store was out of reach a moment ago, the answer is that, at once. */
  function refuseWhileOut(): void {
    if (outage !== undefined && clock.now() < outage.until) throw outage.fault;
  }

  function keyOf(stored: RemoteKey): Key {
    const { id, type, publicKey } = stored;
    let checker: KeyObject | undefined;
    return {
      id,
      type,
      publicKey,
      async sign(data, encoding) {
        refuseWhileOut();
        try {
          const signature = await call('signing', async (signal) => {
            const signed = await remote.sign(stored, data, signal);
            checker ??= createPublicKey({ key: publicKey, format: 'der', type: 'spki' });
            // A store that signs wrongly would fill the trust domain with SVIDs that nobody accepts.
            if (
              !verify(classicKeyTypes[type].hash, data, { key: checker, dsaEncoding: spelling[remote.ecdsa] }, signed)
            )
              throw garbled(name, `a signature that its key ${quote(id)} did not make`);
            return signed;
          });
          return spelt(signature, type, remote.ecdsa, encoding);
        } catch (error) {
          // Whoever asks for it by name now learns that it is gone.
          if (error instanceof Fault && error.code === 'keys/lost' && known.get(id)?.stored === stored)
            known.delete(id);
          throw error;
        }
      },
    };
  }

  function remember(stored: RemoteKey): Key {
    const there = known.get(stored.id);
    // The same object for the same key: whoever holds it and whoever asks anew have one.
    if (there?.stored.handle === stored.handle) return there.key;
    const key = keyOf(stored);
    known.set(stored.id, { stored, key });
    return key;
  }

  async function discover(): Promise<readonly RemoteKey[]> {
    const found = await call('listing keys', (signal) => remote.list(signal), longPatience);
    const current = currentOf(found);
    for (const id of known.keys()) if (!current.has(id)) known.delete(id);
    for (const stored of current.values()) remember(stored);
    return found;
  }

  // Once at the start: an address or a right that is wrong is told now, not at the first signature.
  await discover();

  const last: { kept?: number; disposed?: number } = {};
  let cancelUpkeep = (): void => {};
  async function upkeep(): Promise<void> {
    const due = upkeepDue(last, clock.now());
    let next = due.next - clock.now();
    try {
      if (due.keep) {
        const own = currentOf(await discover());
        await call(
          'marking keys as used',
          async (signal) => remote.keepAlive?.([...own.values()], signal),
          longPatience,
        );
        last.kept = clock.now();
      }
      if (due.dispose) {
        await call('disposing of keys', dispose, longPatience);
        last.disposed = clock.now();
      }
    } catch (error) {
      next = retryAfter;
      if (!ended.signal.aborted) log.warn({ store: name, reason: (error as Error).message }, 'upkeep of keys put off');
    }
    if (!ended.signal.aborted) cancelUpkeep = clock.after(next, () => void upkeep());
  }
  async function dispose(signal: AbortSignal): Promise<void> {
    const found = await (remote.listAll ?? remote.list)(signal);
    for (const { key, why } of uselessKeys(found, remote.owner, clock.now())) {
      await remote.destroy(key, signal);
      log.info({ store: name, id: key.id, server: key.owner, why }, 'key of no more use disposed of');
    }
  }
  void upkeep();

  return {
    async generate(id, type) {
      const kind = classicFacts(type, name).type;
      refuseWhileOut();
      return remember(await call('making a key', (signal) => remote.create(id, kind, signal), longPatience));
    },
    async get(id) {
      if (!known.has(id)) await discover();
      return known.get(id)?.key;
    },
    async list() {
      await discover();
      return [...known.values()].map(({ key }) => key).sort((a, b) => (a.id < b.id ? -1 : 1));
    },
    async remove(id) {
      const all = await discover();
      for (const stored of all.filter((one) => one.id === id))
        await call('removing a key', (signal) => remote.destroy(stored, signal));
      known.delete(id);
    },
    async check() {
      refuseWhileOut();
      if (outage !== undefined) await call('listing keys', (signal) => remote.list(signal));
    },
    async close() {
      ended.abort(new Fault('keys/unavailable', `the key store ${name} is closed`));
      cancelUpkeep();
      await remote.close?.();
    },
  };
}

const spelling = { der: 'der', raw: 'ieee-p1363' } as const;

function spelt(signature: Buffer, type: ClassicKeyType, from: 'der' | 'raw', to: 'der' | 'raw'): Buffer {
  const { shape } = classicKeyTypes[type];
  if (shape.kind !== 'ec' || from === to) return signature;
  return to === 'raw' ? rawSignature(signature, shape.curve) : derSignature(signature, shape.curve);
}

/** By name, the key that it means now. */
function currentOf(found: readonly RemoteKey[]): Map<string, RemoteKey> {
  const current = new Map<string, RemoteKey>();
  for (const key of found) {
    const there = current.get(key.id);
    if (key.current !== false && (there === undefined || isNewer(key, there))) current.set(key.id, key);
  }
  return current;
}

const isNewer = (key: RemoteKey, other: RemoteKey): boolean =>
  key.made === other.made ? key.handle > other.handle : key.made > other.made;
