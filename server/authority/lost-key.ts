/** An authority whose key is not where it was: whether it can sign all the same, and what is said of it. */
import { Fault, quote } from '../../src/errors.ts';
import type { Key } from '../../src/keys/key-store.ts';
import type { Slot } from './slots.ts';

/** Whether the store signs with a key held from before. Throws what is in the way otherwise. */
export async function stillSigns(key: Key): Promise<boolean> {
  try {
    await key.sign(Buffer.from('is it there'), 'der');
    return true;
  } catch (error) {
    if (error instanceof Fault && error.code === 'keys/lost') return false;
    throw error;
  }
}

/** @param name of the kind of authority */
export function lostKey(name: string, { keyId }: Slot): Fault {
  return new Fault('keys/lost', `the ${name} authority has lost its key ${quote(keyId)}; a new one is being made`);
}

/** Of keys that servers share, where this one has another store. @param name of the kind of authority */
export function keyElsewhere(name: string, { keyId, notAfter }: Slot): Fault {
  return new Fault(
    'keys/lost',
    `the ${name} authority that all servers share has a key that is not in this key store`,
    {
      hint: `Let all servers have one key store. If the key was deleted, a server that still runs replaces it; when none does, start without keys.shareJwt until ${new Date(notAfter).toISOString()}.`,
      detail: `the key is called ${keyId}`,
    },
  );
}
