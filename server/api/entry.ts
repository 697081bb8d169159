/** spire.api.server.entry.v1.Entry: registration entries for operators, authorised entries for agents. */
import { Fault, quote, Status } from '../../src/errors.ts';
import { messageCodec } from '../../src/rpc/load.ts';
import { type Call, encoded, type Service } from '../../src/rpc/serve.ts';
import { checkEntry, type EntryDraft, type EntryPatch } from '../../src/spiffe/entry.ts';
import {
  isMemberOf,
  makeId,
  parseTrustDomainOrId,
  requireWorkloadId,
  serverId,
  type TrustDomain,
} from '../../src/spiffe/id.ts';
import { makeSelector } from '../../src/spiffe/selector.ts';
import { draftFromWire, type EntryMask, entryToWire, patchFromWire, type WireEntry } from '../../src/wire/entry.ts';
import { idFromWire, selectorsFromWire, type WireId } from '../../src/wire/id.ts';
import { authorizedEntries } from '../entries/authorized.ts';
import type { Created, StoredEntry } from '../store/store.ts';
import type { Context } from './context.ts';
import { countOf, cutPage, type MatchBehavior, requireSelectors, setMatches, type WireSelectorMatch } from './page.ts';
import { ok, statusOf, type WireStatus } from './status.ts';
import { syncAuthorizedEntries } from './sync-entries.ts';
import { entrySize } from './sync-group.ts';

/** Bytes, by the cautious measure of `entrySize`. */
const largestEntry = 128 * 1024;
const largestAnswer = 1_000_000;
const authorizedCodec = () => messageCodec('spire.api.server.entry.v1.GetAuthorizedEntriesResponse');

interface EntryFilter {
  by_spiffe_id: WireId | null;
  by_parent_id: WireId | null;
  by_selectors: WireSelectorMatch | null;
  by_federates_with: { trust_domains: string[]; match: MatchBehavior } | null;
  by_hint: { value: string } | null;
  by_downstream: { value: boolean } | null;
}

interface EntryResult {
  status: WireStatus;
  entry?: Partial<WireEntry>;
}

export function entryService(context: Context): Service {
  const { trustDomain, store, world, clock, random, log } = context;

  /** Works out the outcome of the items that were well formed in one write, and puts all in request order. */
  async function inOneWrite<Item, Ready, Outcome>(
    items: readonly Item[],
    read: (item: Item) => Ready,
    write: (ready: readonly Ready[]) => Promise<readonly Outcome[]>,
    tell: (outcome: Outcome) => EntryResult,
  ): Promise<EntryResult[]> {
    const results: EntryResult[] = new Array(items.length);
    const ready: Ready[] = [];
    const places: number[] = [];
    items.forEach((item, place) => {
      try {
        ready.push(read(item));
        places.push(place);
      } catch (thrown) {
        results[place] = { status: statusOf(thrown, log) };
      }
    });
    if (ready.length > 0) {
      const outcomes = await write(ready);
      outcomes.forEach((outcome, index) => {
        results[places[index] as number] = tell(outcome);
      });
      await world.reach();
    }
    return results;
  }

  function list(filter: EntryFilter | null, size: number, token: string) {
    return cutPage(candidates(filter), entryFilter(filter, trustDomain), size, token, entrySize);
  }

  /** Entries among which all that match are, in creation order: by an index where the filter names a SPIFFE ID. */
  function candidates(filter: EntryFilter | null): (after: number) => Iterable<StoredEntry> {
    const { by_spiffe_id, by_parent_id } = filter ?? {};
    const few = by_spiffe_id
      ? world.entriesOf(idFromWire(by_spiffe_id, 'SPIFFE ID filter'))
      : by_parent_id
        ? world.childrenOf(idFromWire(by_parent_id, 'parent ID filter'))
        : undefined;
    return few ? () => [...few].sort((a, b) => a.seq - b.seq) : (after) => world.entriesAfter(after);
  }

  /** Checks a draft, its size too: an entry has to fit into messages with others. */
  function check(draft: EntryDraft): EntryDraft {
    const checked = checkEntry(draft, trustDomain);
    const size = entrySize(checked);
    if (size <= largestEntry) return checked;
    throw new Fault('input/invalid', `the entry takes about ${size} bytes; at most ${largestEntry} are accepted`, {
      hint: 'Give it fewer or shorter selectors, DNS names or trust domains.',
    });
  }

  const methods = {
    CountEntries: ({ filter }: { filter: EntryFilter | null }) => ({
      count: countOf(candidates(filter)(0), entryFilter(filter, trustDomain)),
    }),

    ListEntries(request: {
      filter: EntryFilter | null;
      output_mask: EntryMask | null;
      page_size: number;
      page_token: string;
    }) {
      const page = list(request.filter, request.page_size, request.page_token);
      return {
        entries: page.items.map((entry) => entryToWire(entry, request.output_mask)),
        next_page_token: page.next,
      };
    },

    GetEntry({ id, output_mask }: { id: string; output_mask: EntryMask | null }) {
      if (id === '') throw new Fault('input/invalid', 'missing ID');
      const entry = world.entries.get(id);
      if (!entry) throw new Fault('thing/missing', 'entry not found');
      return entryToWire(entry, output_mask);
    },

    async BatchCreateEntry(request: { entries: WireEntry[]; output_mask: EntryMask | null }) {
      const now = Math.floor(clock.now() / 1000);
      const results = await inOneWrite(
        request.entries,
        (wire) => ({ draft: check(draftFromWire(wire)), stamp: { id: random.uuid(), now } }),
        (drafts) => store.entries.create(drafts),
        (outcome) => createdToWire(outcome, request.output_mask),
      );
      return { results };
    },

    async BatchUpdateEntry(request: {
      entries: WireEntry[];
      input_mask: EntryMask | null;
      output_mask: EntryMask | null;
    }) {
      const results = await inOneWrite(
        request.entries,
        (wire) => ({ id: wire.id, patch: checkPatch(wire, request.input_mask) }),
        (patches) => store.entries.update(patches),
        (outcome) => {
          if ('updated' in outcome) return { status: ok, entry: entryToWire(outcome.updated, request.output_mask) };
          if ('unknownBundle' in outcome) return { status: unknownBundle(outcome.unknownBundle) };
          return { status: { code: Status.NOT_FOUND, message: 'entry not found' } };
        },
      );
      return { results };
    },

    async BatchDeleteEntry({ ids }: { ids: string[] }) {
      const named = ids.filter((id) => id !== '');
      const targets = named.map((entryId) => ({ by: 'entry', entryId }) as const);
      const deleted = await context.withdrawing(targets, () => store.entries.delete(named));
      await world.reach();
      let next = 0;
      const results = ids.map((id) => {
        if (id === '') return { status: { code: Status.INVALID_ARGUMENT, message: 'missing entry ID' }, id };
        return deleted[next++]
          ? { status: ok, id }
          : { status: { code: Status.NOT_FOUND, message: 'entry not found' }, id };
      });
      return { results };
    },

    GetAuthorizedEntries({ output_mask }: { output_mask: EntryMask | null }, call: Call) {
      const entries = authorizedEntries(world, context.rightsOf(call).node!);
      const answer = { entries: entries.map((entry) => entryToWire(entry, output_mask)) };
      // The call has no pages, and only older agents make it. Their entries are counted exactly when that could matter.
      if (entries.reduce((sum, entry) => sum + entrySize(entry), 0) < largestAnswer) return answer;
      const bytes = authorizedCodec().encode(answer);
      if (bytes.length < largestAnswer) return encoded(bytes);
      throw new Fault('limit/exceeded', `${entries.length} entries do not fit into one message`, {
        hint: 'Use an agent that calls SyncAuthorizedEntries.',
      });
    },

    SyncAuthorizedEntries: syncAuthorizedEntries(context),
  };

  /** An update must leave a valid entry: the stored one with the patch applied is checked as a whole. */
  function checkPatch(wire: WireEntry, mask: EntryMask | null): EntryPatch {
    if (wire.id === '') throw new Fault('input/invalid', 'missing entry ID');
    const patch = patchFromWire(wire, mask);
    // Not in memory is not gone: it may be on its way. What is given has to be valid by itself then.
    const stored: EntryDraft = world.entries.get(wire.id) ?? { ...plainEntry(trustDomain), id: wire.id };
    const checked = check({ ...stored, ...patch }) as EntryDraft & Record<string, unknown>;
    return Object.fromEntries(Object.keys(patch).map((field) => [field, checked[field]]));
  }

  return { name: 'spire.api.server.entry.v1.Entry', methods };
}

/** An entry that is valid and says nothing. */
function plainEntry(trustDomain: TrustDomain): EntryDraft {
  return {
    id: '',
    spiffeId: makeId(trustDomain, '/x'),
    parentId: serverId(trustDomain),
    selectors: [makeSelector('x', 'x')],
    x509SvidTtl: 0,
    jwtSvidTtl: 0,
    federatesWith: [],
    admin: false,
    downstream: false,
    expiresAt: 0,
    dnsNames: [],
    storeSvid: false,
    hint: '',
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
  };
}

function createdToWire(outcome: Created, mask: EntryMask | null): EntryResult {
  if ('created' in outcome) return { status: ok, entry: entryToWire(outcome.created, mask) };
  if ('similar' in outcome) {
    const status = { code: Status.ALREADY_EXISTS, message: 'similar entry already exists' };
    return { status, entry: entryToWire(outcome.similar, mask) };
  }
  if ('taken' in outcome)
    return { status: { code: Status.ALREADY_EXISTS, message: `entry ID ${quote(outcome.taken)} already exists` } };
  return { status: unknownBundle(outcome.unknownBundle) };
}

function unknownBundle(name: string): WireStatus {
  return {
    code: Status.INTERNAL,
    message: `failed to create entry: unable to find federated bundle ${quote(name)}. Set its bundle first`,
  };
}

/** The filters of List and Count, ANDed. Throws `input/invalid` on an empty set. */
function entryFilter(filter: EntryFilter | null, trustDomain: Context['trustDomain']): (entry: StoredEntry) => boolean {
  const tests: ((entry: StoredEntry) => boolean)[] = [];
  if (filter?.by_spiffe_id) {
    const id = requireWorkloadId(idFromWire(filter.by_spiffe_id, 'SPIFFE ID filter'), trustDomain, 'SPIFFE ID filter');
    tests.push((entry) => entry.spiffeId === id);
  }
  if (filter?.by_parent_id) {
    const id = idFromWire(filter.by_parent_id, 'parent ID filter');
    if (!isMemberOf(id, trustDomain)) {
      throw new Fault(
        'input/invalid',
        `parent ID filter ${quote(id)} is not a member of trust domain ${quote(trustDomain)}`,
      );
    }
    tests.push((entry) => entry.parentId === id);
  }
  if (filter?.by_selectors) {
    const wanted = requireSelectors(selectorsFromWire(filter.by_selectors.selectors), 'filter.by_selectors');
    const how = filter.by_selectors.match;
    tests.push((entry) => setMatches(entry.selectors, wanted, how));
  }
  if (filter?.by_federates_with) {
    const wanted = new Set(filter.by_federates_with.trust_domains.map(parseTrustDomainOrId));
    if (wanted.size === 0)
      throw new Fault('input/invalid', 'filter.by_federates_with is malformed: empty trust domain set');
    const how = filter.by_federates_with.match;
    tests.push((entry) => setMatches(entry.federatesWith, wanted, how));
  }
  if (filter?.by_hint) {
    const hint = filter.by_hint.value;
    tests.push((entry) => entry.hint === hint);
  }
  // Only `true` filters: SPIRE's command always sends false when it means "no filter".
  if (filter?.by_downstream?.value) tests.push((entry) => entry.downstream);
  return (entry) => tests.every((test) => test(entry));
}
