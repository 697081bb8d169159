/**
 * The slots of one authority as the journal holds them. Those of one server have one writer. Those that several servers
 * share are read anew before each step, and of two servers that change them at once one is told that it was overtaken.
 */
import { Fault, quote } from '../../src/errors.ts';
import type { Journal } from '../store/store.ts';
import { readSlots, type Slots } from './slots.ts';

/** Stands for all servers where the name of one would stand: in names of journals, and of owners in key stores. */
export const sharedHolder = 'shared';
/** A server knows what others did with a shared authority after this at the latest, while it reaches the database. Milliseconds. */
export const knownWithin = 10_000;

export interface SlotsDocument {
  readonly slots: Slots;
  /** Throws `Overtaken` when another server was first, `state/refused` when there ought to be no other. */
  save(next: Slots): Promise<void>;
  /** Takes what others have written, and what was written here without an answer. Gives whether anything was new. */
  catchUp(): Promise<boolean>;
}

/** Another server changed the same first, and nothing was written. */
export class Overtaken extends Fault {
  constructor(document: string) {
    super('state/refused', `the journal ${quote(document)} was changed by another server meanwhile`, {
      hint: 'Look at it again, then try again.',
    });
  }
}

export async function slotsDocument(journal: Journal, name: string, isShared: boolean): Promise<SlotsDocument> {
  const stored = await journal.get(name);
  let version = stored?.version ?? 0;
  let slots = stored ? readSlots(stored.text, name) : {};
  /** What a write whose outcome is unknown would have stored. */
  let attempted: string | undefined;

  return {
    get slots() {
      return slots;
    },
    async save(next) {
      attempted = JSON.stringify(next);
      const written = await journal.put(name, attempted, version);
      attempted = undefined;
      if (!written && isShared) throw new Overtaken(name);
      if (!written) {
        throw new Fault('state/refused', `the journal ${quote(name)} was changed by another process`, {
          hint: 'Two servers share one data directory: give each its own.',
        });
      }
      version++;
      slots = next;
    },
    async catchUp() {
      if (!isShared && attempted === undefined) return false;
      const found = await journal.get(name);
      const isOwn = found?.version === version + 1 && found.text === attempted;
      attempted = undefined;
      if (found === undefined || found.version === version || !(isShared || isOwn)) return false;
      slots = readSlots(found.text, name);
      version = found.version;
      return true;
    },
  };
}

/**
 * An authority that its server signs with no more: what it signed is good until it ends, and no rotation waits for it.
 * Gives the names of its keys, which are of no use now.
 */
export async function retireSlots(journal: Journal, name: string): Promise<string[]> {
  const found = await journal.get(name);
  const { active, prepared, old } = found ? readSlots(found.text, name) : {};
  if (!found || (!active && !prepared)) return [];
  const kept = active ?? old;
  if (!(await journal.put(name, JSON.stringify({ ...(kept && { old: kept }) }), found.version))) return [];
  return [active, prepared, old].flatMap((slot) => (slot ? [slot.keyId] : []));
}
