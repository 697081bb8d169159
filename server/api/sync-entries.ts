/**
 * Entry.SyncAuthorizedEntries, the poll of SPIRE's agents: a small set is sent whole; a large one as revisions first, and
 * then the entries the agent asks for. Everything comes from memory.
 */
import { Fault } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import { type EntryMask, entryToWire } from '../../src/wire/entry.ts';
import { authorizedEntries } from '../entries/authorized.ts';
import type { StoredEntry } from '../store/store.ts';
import type { Context } from './context.ts';

const pageSize = 500;

interface SyncRequest {
  output_mask: EntryMask | null;
  ids: string[];
}

export function syncAuthorizedEntries({ world, rightsOf }: Context) {
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
    const entries = authorizedEntries(world, rightsOf(call).node!);
    if (entries.length <= pageSize) {
      await send({ entries: entries.map((entry) => entryToWire(entry, mask)) });
      return;
    }
    await sendPages(entries, (page) => ({ entry_revisions: page.map(revisionToWire) }), send);

    const held = new Map(entries.map((entry) => [entry.id, entry]));
    for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
      const asked: StoredEntry[] = [];
      for (const id of next.value.ids) {
        const entry = held.get(id);
        if (entry) asked.push(entry);
      }
      await sendPages(asked, (page) => ({ entries: page.map((entry) => entryToWire(entry, mask)) }), send);
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
  send: (message: object) => Promise<void>,
): Promise<void> {
  for (let start = 0; start === 0 || start < entries.length; start += pageSize) {
    const more = start + pageSize < entries.length;
    await send({ ...message(entries.slice(start, start + pageSize)), more });
  }
}
