/**
 * One signing authority of this server (X.509, JWT or WIT): its slots in the journal, its keys in the key store, its public
 * half in the bundle, and the live signer. The order of steps makes every crash harmless: a key is made before the
 * journal names it, the journal names it before the bundle carries it, and the bundle carries it before it signs (FED-1).
 */
import type { KeyType } from '../../src/crypto/algorithms.ts';
import { Fault } from '../../src/errors.ts';
import type { Key, KeyStore } from '../../src/keys/key-store.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import { type Live, type LiveWriter, live } from '../../src/run/live.ts';
import type { Random } from '../../src/run/random.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { backdate, caActivateAt, caPrepareAt } from '../../src/spiffe/lifetime.ts';
import type { Journal } from '../store/store.ts';
import { madeAt, newKeyName } from './key-names.ts';
import { keyElsewhere, lostKey, stillSigns } from './lost-key.ts';
import type { OwnBundle } from './own-bundle.ts';
import { activate, prepare, revoke, type Slot, type Slots, taint } from './slots.ts';
import { Overtaken, sharedHolder, slotsDocument } from './slots-document.ts';

/** What differs between kinds of authority. */
export interface AuthorityKind<Signer> {
  /** `X.509`, `JWT` or `WIT`: for messages. */
  readonly name: string;
  /** Prefix of journal documents and key names. */
  readonly prefix: string;
  /** Others sign what is made, so that making it may fail, or take until somebody has done so. */
  readonly isRemote?: boolean;
  /** Whether the slot is still as the configuration wants it; one that is not is replaced. Absent: always. */
  suits?(slot: Slot): boolean;
  /** Why nothing may hang on the slot any more, a sentence. Absent: nothing is known against any. */
  condemns?(slot: Slot): string | undefined;
  /** Publishes the slot beyond this server, before the bundle carries it. May be repeated. */
  announce?(slot: Slot): Promise<void>;
  /** Makes the public half for a new key. */
  make(key: Key, now: number): Promise<Omit<Slot, 'keyId' | 'tainted'>>;
  /** The public key of the slot, SubjectPublicKeyInfo. */
  spkiOf(slot: Slot): Buffer;
  /** Makes the signer for a slot whose key is there. */
  signer(slot: Slot, key: Key): Signer;
  /** Puts the slot, tainted or not, into a bundle; undefined when it is there already. */
  publish(bundle: Bundle, slot: Slot): Bundle | undefined;
  /** Takes the slot out of a bundle; undefined when it is not there. */
  withdraw(bundle: Bundle, slot: Slot): Bundle | undefined;
  /** Where the kind allows it: takes out a tainted authority by its id alone, when no slot of this server holds it. */
  withdrawTainted?(bundle: Bundle, id: string): { bundle: Bundle; notAfter: number } | undefined;
}

/** What is left to tell of an authority that was revoked. */
export type Revoked = Pick<Slot, 'id' | 'notAfter' | 'upstream'>;

export interface AuthorityPorts {
  readonly journal: Journal;
  readonly keys: KeyStore;
  readonly bundle: OwnBundle;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly serverName: string;
  /** Given when all servers of the database sign with this authority; says where they share its keys. */
  readonly shared?: 'database' | 'elsewhere' | undefined;
  readonly keyType: KeyType;
  /** Called with each new authority when the journal names it and the bundle does not carry it yet. */
  readonly beforePublished?: (slot: Slot, key: Key) => Promise<void>;
}

export interface Authority<Signer> {
  /** The name of its journal, `KIND@SERVER`. */
  readonly document: string;
  /** The signer to use right now. */
  readonly signer: Live<Signer>;
  state(): Slots;
  /** Takes what other servers did with it, where it is shared: at once, and not within seconds. */
  catchUp(): Promise<void>;
  /** Makes and publishes a new authority beside the active one, unless there is a usable one that `keep` is true for. */
  prepare(keep?: (prepared: Slot) => boolean): Promise<Slot>;
  activate(id: string): Promise<Slot>;
  taint(id: string): Promise<Slot>;
  revoke(id: string): Promise<Revoked>;
  /**
   * Replaces at once what signs or is prepared if it is this one, which is not trusted any more: takes it for tainted, or
   * forgets it. May be repeated.
   */
  leave(id: string, how: 'tainted' | 'revoked'): Promise<void>;
  /** Prepares and activates at once if what signs leads to this root, and takes what signed for tainted. */
  leaveRoot(rootId: string): Promise<boolean>;
  /** Takes what the old authority signed for tainted if it leads to this root, which is. */
  taintBelow(rootId: string): Promise<void>;
  /** Forgets the old authority if it leads to this root, which nobody trusts any more. */
  forgetRoot(rootId: string): Promise<void>;
  /** Does what time and lost keys demand: prepares, activates. Called every few seconds. */
  keepFresh(): Promise<void>;
  /** Throws `keys/lost` while it cannot sign because its key is gone, as the last look has found. */
  check(): void;
}

/** For an authority of another kind to be known everywhere before it signs, milliseconds. */
const spreadTime = 60_000;
/** For another server to name a key that it has made, milliseconds. */
const hour = 3_600_000;
/** Each time it was overtaken, another server has got on. */
const mostTries = 20;

/** Whether what failed is the authority above this server, which has been told of where it happened. */
export function isUpstreamFault(error: unknown): boolean {
  return error instanceof Fault && (error.code === 'upstream/unavailable' || error.code === 'upstream/refused');
}

/** Loads the authority or makes the first one. */
export async function startAuthority<Signer>(
  kind: AuthorityKind<Signer>,
  ports: AuthorityPorts,
): Promise<Authority<Signer>> {
  const { journal, keys, bundle, clock, random, log, serverName, shared, keyType } = ports;
  const document = `${kind.prefix}@${shared ? sharedHolder : serverName}`;
  const stored = await slotsDocument(journal, document, shared !== undefined);
  let { slots } = stored;
  async function save(next: Slots): Promise<void> {
    await stored.save(next);
    slots = next;
  }

  /** True while the bundle may lag behind the journal: from before it is written until that has worked. */
  let unpublished = false;
  async function publish(change: (before: Bundle) => Bundle | undefined): Promise<void> {
    const all = unpublished;
    unpublished = true;
    if (all) await publishSlots();
    await bundle.edit(change);
    unpublished = false;
  }
  async function publishSlots(): Promise<void> {
    for (const slot of [slots.old, slots.active, slots.prepared]) {
      if (!slot || slot.notAfter <= clock.now() || kind.condemns?.(slot)) continue;
      const key = slot === slots.prepared && ports.beforePublished ? await keyOf(slot) : undefined;
      if (key) await ports.beforePublished?.(slot, key);
      await announce(slot);
      await bundle.edit((before) => kind.publish(before, slot));
    }
  }

  const announced = new Set<string>();
  async function announce(slot: Slot): Promise<void> {
    if (kind.announce === undefined || slot.tainted || announced.has(slot.id)) return;
    await kind.announce(slot);
    announced.add(slot.id);
  }

  /** Undefined when it is gone, or another one is in its place: what that signed, nobody would believe. */
  async function keyOf(slot: Slot | undefined): Promise<Key | undefined> {
    const key = slot && (await keys.get(slot.keyId));
    if (!key || kind.spkiOf(slot).equals(key.publicKey)) return key;
    if (!strangers.has(slot.keyId))
      log.error(
        { authority: slot.id, named: slot.keyId },
        `the key store has another key in place of that of the ${kind.name} authority`,
      );
    strangers.add(slot.keyId);
    return undefined;
  }
  /** Names of keys that are not what they were; told once each. */
  const strangers = new Set<string>();

  /** The key of the next authority. One that others are to sign for is named in the journal, and asked for again. */
  async function nextKey(): Promise<Key> {
    const asked = slots.requested === undefined ? undefined : await keys.get(slots.requested);
    if (asked?.type === keyType) return asked;
    const key = await keys.generate(newKeyName(kind.prefix, clock.now(), random), keyType);
    if (kind.isRemote) await save({ ...slots, requested: key.id });
    if (asked) await keys.remove(asked.id);
    return key;
  }

  async function makePrepared(): Promise<Slot> {
    const key = await nextKey();
    const slot: Slot = { ...(await kind.make(key, clock.now())), keyId: key.id, tainted: false };
    const forgotten = slots.prepared;
    await save(prepare(slots, slot)).catch(async (error: unknown) => {
      if (error instanceof Overtaken) await keys.remove(key.id);
      throw error;
    });
    try {
      await ports.beforePublished?.(slot, key);
      await announce(slot);
    } catch (error) {
      // It is in the journal: it is announced and published as soon as that can be done.
      unpublished = true;
      throw error;
    }
    await publish((before) => {
      const rest = forgotten && kind.withdraw(before, forgotten);
      return kind.publish(rest ?? before, slot) ?? rest;
    });
    if (forgotten) await keys.remove(forgotten.keyId);
    log.info(
      { authority: slot.id, expiresAt: new Date(slot.notAfter).toISOString() },
      `${kind.name} authority prepared`,
    );
    return slot;
  }

  let writer: LiveWriter<Signer> | undefined;
  let trouble: Fault | undefined;
  /** The authority whose loss has been logged. */
  let missed: string | undefined;
  let signing: { readonly slot: Slot; readonly key: Key } | undefined;
  function signWith(slot: Slot, key: Key): void {
    const signer = kind.signer(slot, key);
    signing = { slot, key };
    trouble = undefined;
    if (writer) writer.set(signer);
    else writer = live(signer);
  }
  async function makeActive(id: string): Promise<Slot> {
    if (shared && slots.active?.id === id) return slots.active;
    const next = activate(slots, id, kind.name);
    const slot = next.active as Slot;
    const key = await keyOf(slot);
    if (!key || slot.notAfter <= clock.now()) {
      const why = key ? 'has expired' : 'has lost its key';
      throw new Fault('state/refused', `the prepared ${kind.name} authority ${why}`, { hint: 'Prepare a new one.' });
    }
    const condemned = kind.condemns?.(slot);
    if (condemned) throw new Fault('state/refused', `the prepared ${kind.name} authority cannot sign: ${condemned}`);
    const forgotten = slots.old;
    // It may have been prepared while the bundle could not be written: nothing signs before it is published.
    await announce(slot);
    await publish((before) => {
      // Nothing that it signed is valid: verifiers have one key less to keep.
      const isOver = shared && forgotten && forgotten.notAfter <= clock.now();
      const rest = isOver ? kind.withdraw(before, forgotten) : undefined;
      return kind.publish(rest ?? before, slot) ?? rest;
    });
    await save(next);
    signWith(slot, key);
    if (forgotten) await keys.remove(forgotten.keyId);
    log.info({ authority: slot.id }, `${kind.name} authority activated`);
    return slot;
  }

  /** First start, lost keys or an expired authority: there must be one that signs. */
  async function begin(): Promise<void> {
    const now = clock.now();
    const { active } = slots;
    const activeKey = await keyOf(active);
    if (active && active.notBefore > now) {
      throw new Fault(
        'state/refused',
        `the clock says ${new Date(now).toISOString()}, before the active ${kind.name} authority became valid at ${new Date(active.notBefore).toISOString()}`,
        { hint: 'Set the clock of this machine, then start the server again.' },
      );
    }
    const usable = active && activeKey && active.notAfter > now && !kind.condemns?.(active);
    // Making another would take it from those who have it, and they from us, for ever.
    if (active && !activeKey && active.notAfter > now && shared === 'elsewhere') throw keyElsewhere(kind.name, active);
    await publishSlots().catch((error: unknown) => {
      // What signs can go on, and was told to those above before: they may be away now.
      if (!usable || !isUpstreamFault(error)) throw error;
      unpublished = true;
    });
    if (usable) return signWith(active, activeKey);
    if (active)
      log.warn(
        { authority: active.id },
        `${kind.name} authority is expired, its key is gone or its root is revoked: making a new one`,
      );
    const { prepared } = slots;
    const isReady = prepared && prepared.notAfter > now && !kind.condemns?.(prepared) && (await keyOf(prepared));
    const ready = isReady ? prepared : await makePrepared();
    await makeActive(ready.id);
  }

  /** Removes keys that no slot names: a crash came between the making of one and its naming. */
  async function removeStrayKeys(): Promise<void> {
    const named = new Set([slots.active, slots.prepared, slots.old].map((slot) => slot?.keyId)).add(slots.requested);
    for (const { id } of await keys.list()) {
      if (!id.startsWith(`${kind.prefix}-`) || named.has(id)) continue;
      // Another server may be about to name it.
      if (shared && clock.now() - madeAt(id) < hour) continue;
      await keys.remove(id);
    }
  }

  /** Goes on from what the journal holds: the answer to a write was lost, or another server has written. */
  async function catchUp(): Promise<void> {
    if (!(await stored.catchUp())) return;
    slots = stored.slots;
    unpublished = true;
    const key = await keyOf(slots.active);
    if (key) signWith(slots.active as Slot, key);
  }

  /** The database decides which of several servers is first; the others look again. */
  async function untilFirst<T>(step: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      await catchUp();
      try {
        return await step();
      } catch (error) {
        if (!(error instanceof Overtaken) || tries === mostTries) throw error;
      }
    }
  }

  await untilFirst(begin);
  await removeStrayKeys();

  // One step at a time: operators, the clock and start-up never interleave.
  let turn: Promise<unknown> = Promise.resolve();
  function inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = turn.then(() => untilFirst(step));
    turn = result.catch(() => {});
    return result;
  }

  return {
    document,
    signer: writer as Live<Signer>,
    state: () => slots,
    catchUp: () => inTurn(async () => {}),
    prepare: (keep) =>
      inTurn(async () => {
        const { prepared } = slots;
        return prepared && keep?.(prepared) && (await isUsable(prepared)) ? prepared : makePrepared();
      }),
    activate: (id) => inTurn(() => makeActive(id)),
    taint: (id) =>
      inTurn(async () => {
        // A taint that failed half way, in the journal and not in the bundle, is finished by asking again.
        const halfDone = (unpublished || shared) && slots.old?.id === id && slots.old.tainted;
        if (!halfDone) await save(taint(slots, id, kind.name));
        const slot = slots.old as Slot;
        await publish((before) => kind.publish(before, slot));
        log.warn({ authority: id }, `${kind.name} authority tainted`);
        return slot;
      }),
    revoke: (id) =>
      inTurn(async () => {
        const known = [slots.active, slots.prepared, slots.old].some((slot) => slot?.id === id);
        const stray = known ? undefined : await revokeStray(id);
        if (stray) return stray;
        const rest = revoke(slots, id, kind.name);
        const slot = slots.old as Slot;
        // The bundle first: an authority must not be trusted on when the journal has forgotten that it was tainted.
        await bundle.edit((before) => kind.withdraw(before, slot));
        await save(rest);
        await keys.remove(slot.keyId);
        log.warn({ authority: id }, `${kind.name} authority revoked`);
        return slot;
      }),
    leave: (id, how) =>
      inTurn(async () => {
        if (slots.prepared?.id === id) await makePrepared();
        if (slots.active?.id === id) {
          if (!(await isUsable(slots.prepared))) await makePrepared();
          await makeActive((slots.prepared as Slot).id);
        }
        const { old, ...rest } = slots;
        if (old?.id !== id) return;
        if (how === 'revoked') {
          await bundle.edit((before) => kind.withdraw(before, old));
          await save(rest);
          await keys.remove(old.keyId);
        } else if (!old.tainted) {
          const tainted = { ...old, tainted: true };
          await save({ ...slots, old: tainted });
          await publish((before) => kind.publish(before, tainted));
        }
      }),
    leaveRoot: (rootId) =>
      inTurn(async () => {
        if (slots.active?.upstream?.id !== rootId) return false;
        if (!slots.prepared || slots.prepared.upstream?.id === rootId || !(await isUsable(slots.prepared)))
          await makePrepared();
        if ((slots.prepared as Slot).upstream?.id === rootId) return false;
        await makeActive((slots.prepared as Slot).id);
        await save({ ...slots, old: { ...(slots.old as Slot), tainted: true } });
        return true;
      }),
    taintBelow: (rootId) =>
      inTurn(async () => {
        const { old } = slots;
        if (old && old.upstream?.id === rootId && !old.tainted)
          await save({ ...slots, old: { ...old, tainted: true } });
      }),
    forgetRoot: (rootId) =>
      inTurn(async () => {
        const { old, ...rest } = slots;
        if (old?.upstream?.id !== rootId) return;
        await save(rest);
        await keys.remove(old.keyId);
      }),
    keepFresh: () =>
      inTurn(async () => {
        const now = clock.now();
        const active = slots.active as Slot;
        if (unpublished) await publish(() => undefined);
        const key = await lookForKey(active);
        const unsuited = key !== 'there' || kind.suits?.(active) === false;
        if (!unsuited && now < caPrepareAt(active)) return;
        if (!(await isUsable(slots.prepared))) await makePrepared();
        const prepared = slots.prepared as Slot;
        const changeAt = unsuited
          ? Math.min(prepared.notBefore + backdate + spreadTime, caActivateAt(active))
          : caActivateAt(active);
        if (now >= changeAt || key === 'gone') await makeActive(prepared.id);
      }),
    check() {
      if (trouble) throw trouble;
    },
  };

  /** Where the key of the active authority is; `held`: in this process, which can sign with it until it ends. */
  async function lookForKey(active: Slot): Promise<'there' | 'held' | 'gone'> {
    const key = await keyOf(active);
    if (key) {
      if (signing?.slot.id !== active.id) signWith(active, key);
      trouble = undefined;
      return 'there';
    }
    if (shared && signing?.slot.id !== active.id) {
      // Another server made it, with a key that is not to be had here: that one must not be taken from the others.
      trouble = keyElsewhere(kind.name, active);
      throw trouble;
    }
    const canSign = signing?.slot.id === active.id && (await stillSigns(signing.key));
    if (missed !== active.id)
      log.error(
        { authority: active.id, lost: active.keyId },
        `${kind.name} authority has lost its key: making a new one`,
      );
    missed = active.id;
    trouble = canSign ? undefined : lostKey(kind.name, active);
    return canSign ? 'held' : 'gone';
  }

  /** A clock that jumped far, a lost key or another configuration leave a prepared authority that is of no use. */
  async function isUsable(slot: Slot | undefined): Promise<boolean> {
    if (!slot || slot.notAfter <= clock.now() || kind.suits?.(slot) === false || kind.condemns?.(slot)) return false;
    return (await keyOf(slot)) !== undefined;
  }

  async function revokeStray(id: string): Promise<Revoked | undefined> {
    let found: { bundle: Bundle; notAfter: number } | undefined;
    await bundle.edit((before) => {
      found = kind.withdrawTainted?.(before, id);
      return found?.bundle;
    });
    if (!found) return undefined;
    log.warn({ authority: id }, `${kind.name} authority revoked`);
    return { id, notAfter: found.notAfter };
  }
}
