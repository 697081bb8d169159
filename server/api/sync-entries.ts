/**
 * Entry.SyncAuthorizedEntries, the poll of SPIRE's agents: a small set is sent whole; a large one as revisions first, and
 * then the entries the agent asks for. Everything comes from memory.
 */
import { Fault } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import { type EntryMask, entryToWire } from '../../src/wire/entry.ts';
import { authorizedEntries } from '../entries/authorized.ts';
import type { StoredEntry, StoredNode } from '../store/store.ts';
import type { Context } from './context.ts';
import { entrySize } from './sync-group.ts';

const pageSize = 500;
/** A message stays below this, so that it passes the 4 MiB limit of any agent. */
const pageBytes = 1024 * 1024;

interface SyncRequest {
  output_mask: EntryMask | null;
  ids: string[];
}

export function syncAuthorizedEntries({ world, recheck }: Context) {
  return async (
    requests: AsyncIterable<SyncRequest>,
    call: Call,
    send: (message: object) => Promise<void>,
  ): Promise<void> => {
    const incoming = requests[Symbol.asyncIterator]();
    const first = await incoming.next();
    if (first.done) return;
    const { output_mask: mask, ids } = first.value;
    if (ids.length > 0) throw new Fault('input/invalid', 'specifying IDs on initial request is not supported');
    if (mask && !mask.revision_number) {
      throw new Fault('input/invalid', 'revision number cannot be masked: it says which entries changed');
    }
    // A stream may be opened long before its first message, and go on for long: the caller is checked at each.
    const entries = authorizedEntries(world, (await recheck(call)).node as StoredNode);
    if (entries.length <= pageSize && totalSize(entries) <= pageBytes) {
      await send({ entries: entries.map((entry) => entryToWire(entry, mask)) });
      return;
    }
    await sendPages(
      entries,
      (page) => ({ entry_revisions: page.map(revisionToWire) }),
      () => 0,
      send,
    );

    const held = new Map(entries.map((entry) => [entry.id, entry]));
    for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
      await recheck(call);
      const asked = [...new Set(next.value.ids)].flatMap((id) => held.get(id) ?? []);
      await sendPages(asked, (page) => ({ entries: page.map((entry) => entryToWire(entry, mask)) }), entrySize, send);
    }
  };
}

function revisionToWire(entry: StoredEntry): object {
  return { id: entry.id, revision_number: entry.revision, created_at: entry.createdAt };
}

/** At least one message, `more` on all but the last. */
async function sendPages(
  entries: readonly StoredEntry[],
  message: (page: readonly StoredEntry[]) => object,
  weight: (entry: StoredEntry) => number,
  send: (message: object) => Promise<void>,
): Promise<void> {
  let start = 0;
  do {
    let end = start;
    for (let bytes = 0; end < entries.length && end - start < pageSize; end++) {
      bytes += weight(entries[end] as StoredEntry);
      if (bytes > pageBytes && end > start) break;
    }
    await send({ ...message(entries.slice(start, end)), more: end < entries.length });
    start = end;
  } while (start < entries.length);
}

function totalSize(entries: readonly StoredEntry[]): number {
  return entries.reduce((sum, entry) => sum + entrySize(entry), 0);
}
