/**
 * What the upstream authority held when this server last looked. A root or key that it had and has no more was revoked
 * there, perhaps with its taint, while nobody here was looking; one that it never had may be our own.
 */
import type { Journal } from '../store/store.ts';

export interface Seen {
  /** Subject key ids of roots, lower-case hex. */
  readonly roots: readonly string[];
  /** The `kid`s. */
  readonly keys: readonly string[];
}

export interface LastSeen {
  read(): Promise<Seen>;
  /** Writes only what differs. */
  write(seen: Seen): Promise<void>;
}

const nothing: Seen = { roots: [], keys: [] };

/** @param upstream names it and where it is: what another one held says nothing of this one */
export function lastSeen(journal: Journal, serverName: string, upstream: string): LastSeen {
  const document = `upstream@${serverName}`;
  let version = 0;
  let known: Seen | undefined;

  async function read(): Promise<Seen> {
    if (known) return known;
    const stored = await journal.get(document);
    version = stored?.version ?? 0;
    known = (stored && readSeen(stored.text, upstream)) ?? nothing;
    return known;
  }

  return {
    read,
    async write(seen) {
      const before = await read();
      if (isSame(before.roots, seen.roots) && isSame(before.keys, seen.keys)) return;
      const written = await journal.put(document, JSON.stringify({ upstream, ...seen }), version);
      // Somebody else wrote, or an answer was lost: it is read again at the next look, which finds the same as this one.
      known = written ? seen : undefined;
      if (written) version++;
    },
  };
}

const isSame = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && one.every((id) => other.includes(id));

/** Undefined for what is of another upstream, or cannot be read: then nothing is known, which revokes nothing. */
function readSeen(text: string, upstream: string): Seen | undefined {
  try {
    const { upstream: of, roots, keys } = JSON.parse(text);
    const isText = (one: unknown) => typeof one === 'string';
    return of === upstream && roots.every(isText) && keys.every(isText) ? { roots, keys } : undefined;
  } catch {
    return undefined;
  }
}
