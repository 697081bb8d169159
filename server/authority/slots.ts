/**
 * The life of an authority, as pure steps over at most three slots: prepared, active, old (SPIRE's local authority API).
 * A prepared authority is published but does not sign; the active one signs; the old one no longer signs but what it
 * signed is still valid, until it is tainted and then revoked.
 */
import { Fault, quote } from '../../src/errors.ts';

export interface Slot {
  /** X.509: subject key id, lower-case hex. JWT and WIT: the `kid`. */
  readonly id: string;
  /** The name of its key in the key store. */
  readonly keyId: string;
  /** Milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Base64 DER: a CA certificate or a SubjectPublicKeyInfo. */
  readonly material: string;
  readonly tainted: boolean;
  /** How it leads to a root, when it is none. */
  readonly upstream?: SlotUpstream;
}

export interface SlotUpstream {
  /** The root: subject key id, lower-case hex. */
  readonly id: string;
  /** Base64 DER. */
  readonly root: string;
  /** Base64 DER of the certificates between the slot's and the root, nearest first. */
  readonly chain: readonly string[];
}

export interface Slots {
  readonly active?: Slot;
  readonly prepared?: Slot;
  readonly old?: Slot;
  /**
   * The name of a key for which an upstream authority was asked for a certificate. The next to be prepared has this key,
   * so that asking again, after a failure or a restart, makes no further keys.
   */
  readonly requested?: string;
}

export function prepare(slots: Slots, slot: Slot): Slots {
  const { requested: _, ...rest } = slots;
  return { ...rest, prepared: slot };
}

/** The prepared authority becomes active, the active one old, and the one that was old is forgotten. */
export function activate(slots: Slots, id: string, what: string): Slots {
  if (!slots.prepared) throw refused(what, 'no prepared authority', 'Prepare one first.');
  requireId(slots.prepared, id, what, 'prepared');
  return {
    active: slots.prepared,
    ...(slots.active && { old: slots.active }),
    ...(slots.requested !== undefined && { requested: slots.requested }),
  };
}

export function taint(slots: Slots, id: string, what: string): Slots {
  requireOwn(slots, id, what, 'tainted');
  if (slots.active?.id === id)
    throw refused(what, 'unable to taint the active authority', 'Activate another one first.');
  if (slots.prepared?.id === id)
    throw refused(what, 'unable to taint the prepared authority', 'Only the old authority can be tainted.');
  if (!slots.old) throw refused(what, 'no old authority', 'Prepare and activate a new one first.');
  requireId(slots.old, id, what, 'old');
  if (slots.old.tainted)
    throw refused(what, `authority ${quote(id)} is already tainted`, 'Revoke it when nothing depends on it.');
  return { ...slots, old: { ...slots.old, tainted: true } };
}

/** Only what is tainted can be revoked, so that dependants had their chance to move on. */
export function revoke(slots: Slots, id: string, what: string): Slots {
  requireOwn(slots, id, what, 'revoked');
  if (slots.active?.id === id)
    throw refused(what, 'unable to revoke the active authority', 'Activate another one, then taint this one.');
  if (slots.prepared?.id === id)
    throw refused(what, 'unable to revoke the prepared authority', 'Only a tainted old authority can be revoked.');
  if (!slots.old) throw refused(what, 'no old authority', 'There is nothing to revoke.');
  requireId(slots.old, id, what, 'old');
  if (!slots.old.tainted) throw refused(what, `authority ${quote(id)} is not tainted`, 'Taint it first.');
  const { old: _, ...rest } = slots;
  return rest;
}

/** What no bundle names cannot be taken out of one: below an upstream authority it is the root that is trusted. */
function requireOwn(slots: Slots, id: string, what: string, done: string): void {
  const under = slots.old?.id === id ? slots.old.upstream : undefined;
  if (under)
    throw refused(
      what,
      `an authority below an upstream one cannot be ${done}`,
      `Its upstream authority is ${under.id}.`,
    );
}

function requireId(slot: Slot, id: string, what: string, which: string): void {
  if (slot.id === id) return;
  throw new Fault('input/invalid', `${what} authority ID ${quote(id)} is not the ${which} one`, {
    hint: `The ${which} authority is ${slot.id}.`,
  });
}

function refused(what: string, why: string, hint: string): Fault {
  return new Fault('state/refused', `${what}: ${why}`, { hint });
}

/** Reads a stored document. Throws `data/corrupt`. */
export function readSlots(text: string, name: string): Slots {
  try {
    const slots = JSON.parse(text) as Slots;
    if (typeof slots !== 'object') throw new TypeError('it is no object');
    for (const slot of [slots.active, slots.prepared, slots.old]) if (slot !== undefined) checkSlot(slot);
    if (slots.requested !== undefined && typeof slots.requested !== 'string') throw new TypeError('a key has no name');
    return slots;
  } catch (cause) {
    throw new Fault('data/corrupt', `the journal ${quote(name)} cannot be read`, {
      hint: 'Restore the database from a backup, or remove the document to start with new authorities.',
      cause,
    });
  }
}

function checkSlot(slot: Slot): void {
  const { id, root, chain } = slot.upstream ?? { id: '', root: '', chain: [] };
  const texts = [slot.id, slot.keyId, slot.material, id, root, ...chain];
  const times = [slot.notBefore, slot.notAfter];
  const whole =
    texts.every((value) => typeof value === 'string') &&
    times.every((value) => Number.isFinite(value)) &&
    typeof slot.tainted === 'boolean';
  if (!whole) throw new TypeError('a slot lacks one of its parts');
}
