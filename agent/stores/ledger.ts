/**
 * What lies in stores by this agent's hand, kept on disk, so that an entry that goes while the agent is away leaves no
 * secret behind. It says where, and of the SVID a digest; keys are not in it.
 */
import { join } from 'node:path';
import { Fault } from '../../src/errors.ts';
import { readFileIfThere, writeFileAtomic } from '../../src/run/file.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { parseSelector, type Selector } from '../../src/spiffe/selector.ts';

export interface Stored {
  readonly entryId: string;
  /** The store and the place in it. */
  readonly selectors: readonly Selector[];
  /** Of the secret that lies there; empty while it is not known whether one does. */
  readonly digest: string;
}

export interface Ledger {
  /** By the key of the store and the place. */
  readonly stored: ReadonlyMap<string, Stored>;
  /** Changes records, undefined takes one out, and writes all of them. */
  write(changes: Iterable<readonly [key: string, record: Stored | undefined]>): Promise<void>;
}

const version = 1;

/**
 * Opens the ledger in `dataDir`/state. One that cannot be read is begun anew and told of: then what lies in stores is put
 * there once more, and what should have been removed stays.
 */
export async function openLedger(
  dataDir: string,
  trustDomain: TrustDomain,
  onDropped: (path: string) => void,
): Promise<Ledger> {
  const path = join(dataDir, 'state', 'stored.json');
  const stored = new Map<string, Stored>();
  const file = await readFileIfThere(path);
  try {
    if (file !== undefined) for (const [key, record] of read(file.data, trustDomain)) stored.set(key, record);
  } catch {
    onDropped(path);
  }
  // One write after the other, each of all there is by then: an older one never comes last.
  let last: Promise<unknown> = Promise.resolve();
  const save = (): Promise<void> => {
    const turn = last.then(() => {
      const records = [...stored].map(([key, record]) => ({ key, ...record }));
      return writeFileAtomic(path, JSON.stringify({ version, trust_domain: trustDomain, stored: records }), 0o600);
    });
    last = turn.catch(() => {});
    return turn;
  };
  return {
    stored,
    async write(changes) {
      let isChanged = false;
      for (const [key, record] of changes) {
        isChanged = true;
        if (record === undefined) stored.delete(key);
        else stored.set(key, record);
      }
      if (isChanged) await save();
    },
  };
}

function* read(data: Buffer, trustDomain: TrustDomain): Iterable<[string, Stored]> {
  // biome-ignore lint/suspicious/noExplicitAny: each field is looked at.
  const document = JSON.parse(data.toString('utf8')) as any;
  if (document.version !== version || document.trust_domain !== trustDomain)
    throw new Fault('data/corrupt', 'the ledger is of another version or trust domain');
  for (const { key, entryId, selectors, digest } of document.stored)
    yield [String(key), { entryId: String(entryId), selectors: selectors.map(parseSelector), digest: String(digest) }];
}
