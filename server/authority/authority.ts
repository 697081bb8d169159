/**
 * One signing authority of this server (X.509 or JWT): its slots in the journal, its keys in the key store, its public
 * half in the bundle, and the live signer. The order of steps makes every crash harmless: a key is made before the
 * journal names it, the journal names it before the bundle carries it, and the bundle carries it before it signs (FED-1).
 */
import type { KeyType } from '../../src/crypto/algorithms.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Key, KeyStore } from '../../src/keys/key-store.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import { type Live, type LiveWriter, live } from '../../src/run/live.ts';
import type { Random } from '../../src/run/random.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { caActivateAt, caPrepareAt } from '../../src/spiffe/lifetime.ts';
import type { Journal } from '../store/store.ts';
import type { OwnBundle } from './own-bundle.ts';
import { activate, prepare, readSlots, revoke, type Slot, type Slots, taint } from './slots.ts';

/** What differs between kinds of authority. */
export interface AuthorityKind<Signer> {
  /** `X.509` or `JWT`: for messages. */
  readonly name: string;
  /** Prefix of journal documents and key names. */
  readonly prefix: string;
  /** Makes the public half for a new key. */
  make(key: Key, now: number): Promise<Omit<Slot, 'keyId' | 'tainted'>>;
  /** Makes the signer for a slot whose key is there. */
  signer(slot: Slot, key: Key): Signer;
  /** Puts the slot, tainted or not, into a bundle; undefined when it is there already. */
  publish(bundle: Bundle, slot: Slot): Bundle | undefined;
  withdraw(bundle: Bundle, slot: Slot): Bundle | undefined;
}

export interface AuthorityPorts {
  readonly journal: Journal;
  readonly keys: KeyStore;
  readonly bundle: OwnBundle;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly serverName: string;
  readonly keyType: KeyType;
}

export interface Authority<Signer> {
  /** The signer to use right now. */
  readonly signer: Live<Signer>;
  state(): Slots;
  /** Makes and publishes a new authority beside the active one. */
  prepare(): Promise<Slot>;
  activate(id: string): Promise<Slot>;
  taint(id: string): Promise<Slot>;
  revoke(id: string): Promise<Slot>;
  /** Does what time demands: prepares, activates. Called every few seconds. */
  keepFresh(): Promise<void>;
}

/** Loads the authority or makes the first one. */
export async function startAuthority<Signer>(
  kind: AuthorityKind<Signer>,
  ports: AuthorityPorts,
): Promise<Authority<Signer>> {
  const { journal, keys, bundle, clock, random, log, serverName, keyType } = ports;
  const document = `${kind.prefix}@${serverName}`;
  const stored = await journal.get(document);
  let version = stored?.version ?? 0;
  let slots = stored ? readSlots(stored.text, document) : {};

  async function save(next: Slots): Promise<void> {
    if (!(await journal.put(document, JSON.stringify(next), version))) {
      throw new Fault('state/refused', `the journal ${quote(document)} was changed by another process`, {
        hint: 'Two servers share one data directory: give each its own.',
      });
    }
    version++;
    slots = next;
  }

  const keyOf = async (slot: Slot | undefined): Promise<Key | undefined> => slot && keys.get(slot.keyId);

  async function makePrepared(): Promise<Slot> {
    const now = clock.now();
    const keyId = `${kind.prefix}-${random.bytes(8).toString('hex')}`;
    const key = await keys.generate(keyId, keyType);
    const slot: Slot = { ...(await kind.make(key, now)), keyId, tainted: false };
    const forgotten = slots.prepared;
    await save(prepare(slots, slot));
    await bundle.edit((before) => kind.publish((forgotten && kind.withdraw(before, forgotten)) ?? before, slot));
    if (forgotten) await keys.remove(forgotten.keyId);
    log.info(
      { authority: slot.id, expiresAt: new Date(slot.notAfter).toISOString() },
      `${kind.name} authority prepared`,
    );
    return slot;
  }

  let writer: LiveWriter<Signer> | undefined;
  async function makeActive(id: string): Promise<Slot> {
    const key = await keyOf(slots.prepared);
    if (slots.prepared?.id === id && !key) {
      throw new Fault('state/refused', `the key of the prepared ${kind.name} authority is gone`, {
        hint: 'Prepare a new one.',
      });
    }
    const forgotten = slots.old;
    await save(activate(slots, id, kind.name));
    const slot = slots.active as Slot;
    const signer = kind.signer(slot, key as Key);
    if (writer) writer.set(signer);
    else writer = live(signer);
    if (forgotten) await keys.remove(forgotten.keyId);
    log.info({ authority: slot.id }, `${kind.name} authority activated`);
    return slot;
  }

  // First start, lost keys or an expired authority: there must be one that signs.
  const now = clock.now();
  const activeKey = await keyOf(slots.active);
  if (slots.active && slots.active.notBefore > now) {
    throw new Fault(
      'state/refused',
      `the clock says ${new Date(now).toISOString()}, before the active ${kind.name} authority became valid at ${new Date(slots.active.notBefore).toISOString()}`,
      { hint: 'Set the clock of this machine, then start the server again.' },
    );
  }
  for (const slot of [slots.old, slots.active, slots.prepared]) {
    if (slot && slot.notAfter > now) await bundle.edit((before) => kind.publish(before, slot));
  }
  if (slots.active && activeKey && slots.active.notAfter > now) {
    writer = live(kind.signer(slots.active, activeKey));
  } else {
    if (slots.active)
      log.warn(
        { authority: slots.active.id },
        `${kind.name} authority is expired or its key is gone: making a new one`,
      );
    const ready =
      (await keyOf(slots.prepared)) && (slots.prepared as Slot).notAfter > now
        ? (slots.prepared as Slot)
        : await makePrepared();
    await makeActive(ready.id);
  }
  const named = new Set([slots.active, slots.prepared, slots.old].map((slot) => slot?.keyId));
  for (const key of await keys.list()) {
    if (key.id.startsWith(`${kind.prefix}-`) && !named.has(key.id)) await keys.remove(key.id);
  }

  // One step at a time: operators, the clock and start-up never interleave.
  let turn: Promise<unknown> = Promise.resolve();
  function inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = turn.then(step);
    turn = result.catch(() => {});
    return result;
  }

  return {
    signer: writer as Live<Signer>,
    state: () => slots,
    prepare: () => inTurn(makePrepared),
    activate: (id) => inTurn(() => makeActive(id)),
    taint: (id) =>
      inTurn(async () => {
        await save(taint(slots, id, kind.name));
        const slot = slots.old as Slot;
        await bundle.edit((before) => kind.publish(before, slot));
        log.warn({ authority: id }, `${kind.name} authority tainted`);
        return slot;
      }),
    revoke: (id) =>
      inTurn(async () => {
        const rest = revoke(slots, id, kind.name);
        const slot = slots.old as Slot;
        await bundle.edit((before) => kind.withdraw(before, slot));
        await save(rest);
        await keys.remove(slot.keyId);
        log.warn({ authority: id }, `${kind.name} authority revoked`);
        return slot;
      }),
    keepFresh: () =>
      inTurn(async () => {
        const active = slots.active as Slot;
        if (!slots.prepared && clock.now() >= caPrepareAt(active)) await makePrepared();
        if (slots.prepared && clock.now() >= caActivateAt(active)) await makeActive(slots.prepared.id);
      }),
  };
}
