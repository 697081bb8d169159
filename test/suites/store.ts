/**
 * What every store must do. A store's test calls `storeSuite` with how to make one; the same cases run on all.
 */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type {
  Change,
  Issuance,
  Node,
  Revocation,
  Revoked,
  Store,
  StoredCrl,
  StoredEntry,
  StoredNode,
} from '../../server/store/store.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { EntryDraft } from '../../src/spiffe/entry.ts';
import { parseId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../../src/spiffe/id.ts';
import { parseSelector, type Selector } from '../../src/spiffe/selector.ts';

export interface StoreSubject {
  /** Makes an empty database for one test; the function opens it, and opens it again after a close. */
  fresh(t: TestContext): Promise<() => Promise<Store>>;
  /** Whether what is stored outlives `close`. */
  readonly durable: boolean;
}

export const td = parseTrustDomain('example.org');
export const id = (path: string): SpiffeId => parseId(`spiffe://example.org${path}`);

const selectors = (...texts: string[]): Selector[] => texts.map(parseSelector);

/** An entry to create; `over` replaces any of its fields. */
export function draft(path: string, over: Partial<EntryDraft> = {}): EntryDraft {
  return {
    id: '',
    spiffeId: id(path),
    parentId: id('/spire/agent/x509pop/one'),
    selectors: selectors('unix:uid:1000'),
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
    ...over,
  };
}

/** A node just attested. */
export function node(path: string, over: Partial<Node> = {}): Node {
  return {
    id: id(path),
    attestationType: 'x509pop',
    serial: '17',
    expiresAt: 5000,
    nextSerial: '',
    nextExpiresAt: 0,
    canReattest: true,
    selectors: selectors('x509pop:ca:fingerprint'),
    agentVersion: '',
    ...over,
  };
}

/** A bundle with one authority of each kind. */
export function bundle(name: string, over: Partial<Bundle> = {}): Bundle {
  const bytes = Buffer.from(`bytes of ${name}`);
  return {
    trustDomain: parseTrustDomain(name),
    x509Authorities: [{ certificate: bytes, tainted: false }],
    jwtAuthorities: [{ keyId: 'k1', publicKey: bytes, expiresAt: 9000, tainted: true }],
    witAuthorities: [{ keyId: 'w1', publicKey: bytes, expiresAt: 0, tainted: false }],
    refreshHint: 300,
    sequence: 1n,
    ...over,
  };
}

let stamps = 0;
const stamp = (now = 100): { id: string; now: number } => {
  stamps += 1;
  return { id: `chosen-${stamps}`, now };
};

/** Creates one entry and gives it. */
export async function create(store: Store, one: EntryDraft, now = 100): Promise<StoredEntry> {
  const [outcome] = await store.entries.create([{ draft: one, stamp: stamp(now) }]);
  assert.ok(outcome !== undefined && 'created' in outcome, `expected a new entry, got ${JSON.stringify(outcome)}`);
  return outcome.created;
}

/** The whole log. */
export async function wholeLog(store: Store): Promise<Change[]> {
  const all: Change[] = [];
  for (let at = 0; ; at = all.at(-1)!.position) {
    const page = await store.log.read(at, 700);
    if (page.length === 0) return all;
    all.push(...page);
  }
}

/** What a follower of the log holds after these changes. */
export function replayed(changes: readonly Change[]): {
  entries: StoredEntry[];
  nodes: StoredNode[];
  bundles: Bundle[];
} {
  const entries = new Map<string, StoredEntry>();
  const nodes = new Map<string, StoredNode>();
  const bundles = new Map<TrustDomain, Bundle>();
  const set = <K, V>(map: Map<K, V>, key: K, value: V | undefined): void => {
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  };
  for (const change of changes) {
    if (change.kind === 'entry') set(entries, change.id, change.entry);
    if (change.kind === 'node') set(nodes, change.id, change.node);
    if (change.kind === 'bundle') set(bundles, change.trustDomain, change.bundle);
  }
  const bySeq = (a: { seq: number }, b: { seq: number }): number => a.seq - b.seq;
  return {
    entries: [...entries.values()].sort(bySeq),
    nodes: [...nodes.values()].sort(bySeq),
    bundles: [...bundles.values()].sort((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1)),
  };
}

/** Asserts that the log has no gap and, replayed, is what the tables hold. */
export async function assertLogIsWhole(store: Store): Promise<void> {
  const changes = await wholeLog(store);
  const head = await store.log.position();
  assert.deepEqual(
    changes.map((change) => change.position),
    Array.from({ length: head }, (_, i) => i + 1),
  );
  const state = replayed(changes);
  assert.deepEqual(await store.entries.scan(0, 1_000_000), state.entries);
  assert.deepEqual(await store.nodes.scan(0, 1_000_000), state.nodes);
  assert.deepEqual(await store.bundles.list(), state.bundles);
}

const code = (wanted: string) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, wanted, String(error));
  return true;
};

export function storeSuite(name: string, subject: StoreSubject): void {
  const test = (claim: string, body: (store: Store, reopen: () => Promise<Store>) => Promise<void>): void => {
    it(claim, async (t) => {
      const open = await subject.fresh(t);
      let current = await open();
      t.after(() => current.close());
      await body(current, async () => {
        await current.close();
        current = await open();
        return current;
      });
    });
  };

  describe(`${name}: entries`, () => {
    test('a created entry is given the stamp, revision 0 and every field as it was asked for', async (store) => {
      await store.bundles.put(bundle('peer.test'), 'any');
      const asked = draft('/web', {
        selectors: selectors('unix:uid:1', 'k8s:ns:a'),
        x509SvidTtl: 60,
        jwtSvidTtl: 30,
        federatesWith: [parseTrustDomain('peer.test')],
        admin: true,
        downstream: true,
        expiresAt: 2 ** 40,
        dnsNames: ['b.test', 'a.test'],
        storeSvid: true,
        hint: 'inner "quoted" \u{1f511}',
        disableX509SvidPrefetch: true,
        jwtSvidIncludeJti: true,
      });
      const entry = await create(store, asked, 1234);
      assert.deepEqual(entry, {
        ...asked,
        id: entry.id,
        selectors: selectors('k8s:ns:a', 'unix:uid:1'),
        revision: 0,
        createdAt: 1234,
        seq: entry.seq,
      });
      assert.match(entry.id, /^chosen-/);
      assert.deepEqual(await store.entries.get(entry.id), entry);
      assert.equal(await store.entries.get('none'), undefined);
    });

    test('the outcomes of one call are in order and see what the call created before them', async (store) => {
      const outcomes = await store.entries.create([
        { draft: draft('/a', { id: 'a' }), stamp: stamp() },
        { draft: draft('/a'), stamp: stamp() },
        { draft: draft('/b', { id: 'a' }), stamp: stamp() },
        { draft: draft('/c', { federatesWith: [parseTrustDomain('nowhere.test')] }), stamp: stamp() },
        { draft: draft('/d', { id: 'd' }), stamp: stamp() },
      ]);
      assert.deepEqual(
        outcomes.map((one) => Object.keys(one)[0]),
        ['created', 'similar', 'taken', 'unknownBundle', 'created'],
      );
      const [first, second, third, fourth] = outcomes as [{ created: object }, { similar: object }, object, object];
      assert.deepEqual(second.similar, first.created);
      assert.deepEqual(third, { taken: 'a' });
      assert.deepEqual(fourth, { unknownBundle: 'nowhere.test' });
      assert.equal((await store.entries.scan(0, 10)).length, 2);
    });

    test('an entry with the same SPIFFE ID, parent and selector set is similar, whatever the order', async (store) => {
      const first = await create(store, draft('/web', { selectors: selectors('a:1', 'b:2', 'c:3') }));
      const again = await store.entries.create([
        { draft: draft('/web', { selectors: selectors('c:3', 'a:1', 'b:2', 'a:1'), hint: 'other' }), stamp: stamp() },
      ]);
      assert.deepEqual(again, [{ similar: first }]);
      for (const other of [
        draft('/web', { selectors: selectors('a:1', 'b:2') }),
        draft('/web', { selectors: selectors('a:1', 'b:2', 'c:3', 'd:4') }),
        draft('/web2', { selectors: selectors('a:1', 'b:2', 'c:3') }),
        draft('/web', { selectors: selectors('a:1', 'b:2', 'c:3'), parentId: id('/other') }),
      ]) {
        await create(store, other);
      }
    });

    test('similar entries and taken ids are found across a call of hundreds', async (store) => {
      const many = Array.from({ length: 301 }, (_, i) => ({
        draft: draft(`/w/${i}`, { id: `e${i}` }),
        stamp: stamp(),
      }));
      const created = await store.entries.create(many);
      assert.ok(created.every((one) => 'created' in one));
      const again = await store.entries.create(many);
      assert.deepEqual(
        again,
        created.map((one) => ({ similar: (one as { created: StoredEntry }).created })),
      );
      const taken = await store.entries.create(
        many.map((one) => ({ ...one, draft: { ...one.draft, hint: 'x', parentId: id('/p') } })),
      );
      assert.ok(taken.every((one) => 'taken' in one));
    });

    test('an update sets what the patch names, adds one to the revision always, and keeps the rest', async (store) => {
      const entry = await create(store, draft('/web', { hint: 'old', dnsNames: ['a.test'] }));
      const [one] = await store.entries.update([{ id: entry.id, patch: { hint: 'new', x509SvidTtl: 9 } }]);
      assert.deepEqual(one, { updated: { ...entry, hint: 'new', x509SvidTtl: 9, revision: 1 } });
      const [two, three, missing, unknown] = await store.entries.update([
        { id: entry.id, patch: {} },
        { id: entry.id, patch: { selectors: selectors('z:1', 'a:1') } },
        { id: 'none', patch: {} },
        { id: entry.id, patch: { federatesWith: [parseTrustDomain('nowhere.test')] } },
      ]);
      assert.equal((two as { updated: StoredEntry }).updated.revision, 2);
      assert.deepEqual((three as { updated: StoredEntry }).updated.selectors, selectors('a:1', 'z:1'));
      assert.deepEqual(missing, { missing: true });
      assert.deepEqual(unknown, { unknownBundle: 'nowhere.test' });
      assert.equal((await store.entries.get(entry.id))?.revision, 3);
    });

    test('after an update similarity follows the new selectors', async (store) => {
      const entry = await create(store, draft('/web', { selectors: selectors('a:1') }));
      await store.entries.update([{ id: entry.id, patch: { selectors: selectors('b:2') } }]);
      const [similar] = await store.entries.create([
        { draft: draft('/web', { selectors: selectors('b:2') }), stamp: stamp() },
      ]);
      assert.ok(similar !== undefined && 'similar' in similar);
      await create(store, draft('/web', { selectors: selectors('a:1') }));
    });

    test('a delete gives what was deleted, and the log says what it was', async (store) => {
      const entry = await create(store, draft('/web'));
      const position = await store.log.position();
      assert.deepEqual(await store.entries.delete([entry.id, 'none', entry.id]), [entry, undefined, undefined]);
      assert.deepEqual(await store.log.read(position, 10), [
        {
          position: position + 1,
          kind: 'entry',
          id: entry.id,
          entry: undefined,
          before: { spiffeId: entry.spiffeId, parentId: entry.parentId },
        },
      ]);
    });

    test('seq ascends with creation and a page begins after its token, also when that entry is gone', async (store) => {
      const made: StoredEntry[] = [];
      for (let i = 0; i < 5; i += 1) made.push(await create(store, draft(`/w/${i}`)));
      await store.entries.delete([made[1]!.id, made[4]!.id]);
      const newer = await create(store, draft('/w/5'));
      assert.ok(newer.seq > made[4]!.seq, 'a seq was reused');
      assert.deepEqual(await store.entries.scan(made[1]!.seq, 2), [made[2], made[3]]);
      assert.deepEqual(await store.entries.scan(made[3]!.seq, 2), [newer]);
      assert.deepEqual(await store.entries.scan(newer.seq, 2), []);
    });

    test('prune deletes entries past their expiry only, and no more than the limit', async (store) => {
      for (let i = 0; i < 5; i += 1) await create(store, draft(`/w/${i}`, { expiresAt: i * 10 }));
      assert.equal(await store.entries.prune(30, 1), 1);
      assert.equal(await store.entries.prune(30, 10), 1);
      assert.deepEqual(
        (await store.entries.scan(0, 10)).map((entry) => entry.expiresAt),
        [0, 30, 40],
      );
      await assertLogIsWhole(store);
    });
  });

  describe(`${name}: nodes and tokens`, () => {
    const one = '/spire/agent/x509pop/one';

    test('attesting again replaces what was known of a node and keeps its seq', async (store) => {
      assert.equal(await store.nodes.attest(node(one, { agentVersion: '1' })), 'attested');
      const before = await store.nodes.get(id(one));
      await store.nodes.renew(id(one), '18', 6000);
      assert.equal(
        await store.nodes.attest(node(one, { serial: '99', selectors: selectors('b:1', 'a:1') })),
        'attested',
      );
      assert.deepEqual(await store.nodes.get(id(one)), {
        ...node(one, { serial: '99', selectors: selectors('a:1', 'b:1') }),
        seq: before!.seq,
      });
    });

    test('SPIRE 1.14.6 join token: of 200 parallel attestations with one token exactly one wins', async (store) => {
      await store.tokens.create({ value: 'tok', expiresAt: 1000 });
      const outcomes = await Promise.all(
        Array.from({ length: 200 }, (_, i) =>
          store.nodes.attest(node(`/spire/agent/join_token/${i}`), { value: 'tok', now: 1000 }),
        ),
      );
      assert.equal(outcomes.filter((outcome) => outcome === 'attested').length, 1);
      assert.equal(outcomes.filter((outcome) => outcome === 'token-missing').length, 199);
      assert.equal((await store.nodes.scan(0, 1000)).length, 1);
      assert.equal(await store.tokens.get('tok'), undefined);
    });

    test('an expired token attests nothing and stays for prune', async (store) => {
      await store.tokens.create({ value: 'tok', expiresAt: 1000 });
      assert.equal(await store.nodes.attest(node(one), { value: 'tok', now: 1001 }), 'token-expired');
      assert.equal(await store.nodes.get(id(one)), undefined);
      assert.deepEqual(await store.tokens.get('tok'), { value: 'tok', expiresAt: 1000 });
      assert.equal(await store.nodes.attest(node(one), { value: 'tik', now: 0 }), 'token-missing');
    });

    test('a renewed serial becomes the current one when it is used, once or twice', async (store) => {
      await store.nodes.attest(node(one));
      assert.equal(await store.nodes.renew(id(one), '18', 6000), true);
      assert.equal(await store.nodes.activate(id(one), '19'), false);
      assert.equal((await store.nodes.get(id(one)))?.serial, '17');
      assert.deepEqual(await Promise.all([1, 2].map(() => store.nodes.activate(id(one), '18'))), [true, true]);
      const { serial, expiresAt, nextSerial, nextExpiresAt } = (await store.nodes.get(id(one)))!;
      assert.deepEqual([serial, expiresAt, nextSerial, nextExpiresAt], ['18', 6000, '', 0]);
      assert.equal(await store.nodes.activate(id(one), '17'), false);
      assert.equal(await store.nodes.renew(id('/spire/agent/none'), '1', 1), false);
    });

    test('a banned node keeps its record, cannot attest, renew or activate, and its token stays', async (store) => {
      await store.nodes.attest(node(one));
      await store.nodes.renew(id(one), '18', 6000);
      await store.tokens.create({ value: 'tok', expiresAt: 1000 });
      assert.equal(await store.nodes.ban(id(one)), true);
      assert.equal(await store.nodes.ban(id('/spire/agent/none')), false);
      const banned = (await store.nodes.get(id(one)))!;
      assert.deepEqual([banned.serial, banned.nextSerial], ['', '']);
      assert.equal(await store.nodes.attest(node(one), { value: 'tok', now: 0 }), 'banned');
      assert.ok(await store.tokens.get('tok'));
      assert.equal(await store.nodes.renew(id(one), '20', 1), false);
      assert.equal(await store.nodes.activate(id(one), '18'), false);
      assert.equal(await store.nodes.activate(id(one), ''), false);
      assert.equal(await store.nodes.delete(id(one)), true);
      assert.equal(await store.nodes.attest(node(one)), 'attested');
    });

    test('SPIRE 1.15.2 join token alias: evicting a node of a join token deletes every entry whose parent it is', async (store) => {
      const agent = '/spire/agent/join_token/tok';
      const alias = draft('/alias', {
        parentId: id(agent),
        selectors: selectors(`spiffe_id:spiffe://example.org${agent}`),
      });
      assert.equal(
        await store.tokens.create({ value: 'tok', expiresAt: 10 }, { draft: alias, stamp: stamp() }),
        'created',
      );
      await store.nodes.attest(node(agent, { attestationType: 'join_token' }), { value: 'tok', now: 5 });
      const own = await create(store, draft('/own', { parentId: id(agent) }));
      const other = await create(store, draft('/other', { parentId: id('/spire/agent/join_token/tok2') }));
      assert.equal(await store.nodes.delete(id(agent)), true);
      assert.equal(await store.nodes.delete(id(agent)), false);
      assert.equal(await store.entries.get(own.id), undefined);
      assert.deepEqual(await store.entries.scan(0, 10), [other]);
      await assertLogIsWhole(store);
    });

    test('evicting a node that can attest again keeps the entries an operator made for it', async (store) => {
      const agent = '/spire/agent/x509pop/1';
      await store.nodes.attest(node(agent));
      const own = await create(store, draft('/own', { parentId: id(agent) }));
      assert.equal(await store.nodes.delete(id(agent)), true);
      assert.deepEqual(await store.entries.get(own.id), own);
      await assertLogIsWhole(store);
    });

    test('a token value is taken once; prune takes expired tokens with the alias entries made for them', async (store) => {
      const alias = (token: string) => ({
        draft: draft(`/alias-${token}`, { parentId: id(`/spire/agent/join_token/${token}`) }),
        stamp: stamp(),
      });
      assert.equal(await store.tokens.create({ value: 'a', expiresAt: 10 }, alias('a')), 'created');
      assert.equal(await store.tokens.create({ value: 'a', expiresAt: 99 }, alias('z')), 'taken');
      assert.equal(await store.tokens.create({ value: 'b', expiresAt: 20 }, alias('b')), 'created');
      assert.equal(await store.tokens.prune(11), 1);
      assert.equal(await store.tokens.get('a'), undefined);
      assert.deepEqual(await store.tokens.get('b'), { value: 'b', expiresAt: 20 });
      assert.deepEqual(
        (await store.entries.scan(0, 10)).map((entry) => entry.spiffeId),
        [id('/alias-b')],
      );
    });

    test('the alias of an attested node outlives a second token of the same value', async (store) => {
      const alias = { draft: draft('/alias', { parentId: id('/spire/agent/join_token/a') }), stamp: stamp() };
      await store.tokens.create({ value: 'a', expiresAt: 10 }, alias);
      await store.nodes.attest(node('/spire/agent/join_token/a'), { value: 'a', now: 1 });
      await store.tokens.create({ value: 'a', expiresAt: 20 }, alias);
      await store.tokens.prune(100);
      assert.equal((await store.entries.scan(0, 10)).length, 1);
    });

    test('a token whose alias cannot be made is not made either', async (store) => {
      await create(store, draft('/x', { id: 'x' }));
      const alias = { draft: draft('/alias', { id: 'x' }), stamp: stamp() };
      await assert.rejects(store.tokens.create({ value: 'a', expiresAt: 10 }, alias), code('thing/exists'));
      assert.equal(await store.tokens.get('a'), undefined);
      await assertLogIsWhole(store);
    });

    test('the version of an agent is kept; the same version again appends nothing', async (store) => {
      await store.nodes.attest(node(one));
      assert.equal(await store.nodes.setVersion(id(one), '1.2'), true);
      const position = await store.log.position();
      assert.equal(await store.nodes.setVersion(id(one), '1.2'), true);
      assert.equal(await store.log.position(), position);
      assert.equal((await store.nodes.get(id(one)))?.agentVersion, '1.2');
      assert.equal(await store.nodes.setVersion(id('/spire/agent/none'), '1'), false);
    });
  });

  describe(`${name}: bundles, federation, journal`, () => {
    const peer = parseTrustDomain('peer.test');

    test('a bundle comes back byte for byte, with Buffers and a 64-bit sequence', async (store) => {
      const given = bundle('peer.test', { sequence: 2n ** 64n - 1n });
      assert.equal(await store.bundles.put(given, 'absent'), true);
      const got = (await store.bundles.get(peer))!;
      assert.deepEqual(got, given);
      assert.ok(Buffer.isBuffer(got.x509Authorities[0]!.certificate));
      const [listed] = await store.bundles.list();
      assert.ok(Buffer.isBuffer(listed!.jwtAuthorities[0]!.publicKey));
      const [change] = await store.log.read(0, 1);
      assert.ok(change?.kind === 'bundle' && Buffer.isBuffer(change.bundle!.witAuthorities[0]!.publicKey));
      assert.deepEqual(change.bundle, given);
    });

    test('a put whose expectation fails writes nothing', async (store) => {
      const next = (sequence: bigint): Bundle => bundle('peer.test', { sequence });
      assert.equal(await store.bundles.put(next(1n), 'present'), false);
      assert.equal(await store.bundles.put(next(1n), 0n), false);
      assert.equal(await store.bundles.put(next(1n), 'absent'), true);
      assert.equal(await store.bundles.put(next(2n), 'absent'), false);
      assert.equal(await store.bundles.put(next(2n), 2n), false);
      assert.equal(await store.bundles.put(next(2n), 1n), true);
      assert.equal(await store.bundles.put(next(9n), 'present'), true);
      assert.equal(await store.bundles.put(next(1n), 'any'), true);
      assert.equal(await store.log.position(), 4);
      assert.equal(await store.bundles.put(next(1n), 'any'), true);
      assert.equal(await store.log.position(), 4, 'the same bundle again is no change');
    });

    test('of many compare-and-swaps from one sequence one wins', async (store) => {
      await store.bundles.put(bundle('peer.test', { sequence: 7n }), 'any');
      const won = await Promise.all(
        Array.from({ length: 50 }, (_, i) =>
          store.bundles.put(bundle('peer.test', { sequence: 8n, refreshHint: i }), 7n),
        ),
      );
      assert.equal(won.filter(Boolean).length, 1);
    });

    test('deleting a bundle restricts, deletes or dissociates the entries linked with it', async (store) => {
      const similarName = parseTrustDomain('peer_test');
      const both = [peer, parseTrustDomain('third.test')];
      for (const name of ['peer.test', 'peer_test', 'peerxtest', 'third.test'])
        await store.bundles.put(bundle(name), 'any');
      const linked = await create(store, draft('/linked', { federatesWith: both }));
      const other = await create(store, draft('/other', { federatesWith: [parseTrustDomain('peerxtest')] }));
      assert.equal(await store.bundles.delete(parseTrustDomain('none.test'), 'delete'), 'missing');
      assert.equal(await store.bundles.delete(similarName, 'restrict'), 'deleted');
      assert.deepEqual(await store.bundles.delete(peer, 'restrict'), { linked: 1 });
      assert.ok(await store.bundles.get(peer));
      assert.equal(await store.bundles.delete(peer, 'dissociate'), 'deleted');
      const now = await store.entries.get(linked.id);
      assert.deepEqual(now, { ...linked, federatesWith: [both[1]], revision: 1 });
      assert.equal(await store.bundles.delete(both[1]!, 'delete'), 'deleted');
      assert.deepEqual(await store.entries.scan(0, 10), [other]);
      assert.equal(await store.bundles.get(peer), undefined);
      await assertLogIsWhole(store);
    });

    test('federation relationships are created once, updated, listed and deleted; the bundle stays', async (store) => {
      const web = {
        trustDomain: peer,
        bundleEndpointUrl: 'https://peer.test/',
        profile: { kind: 'https_web' },
      } as const;
      const spiffe = {
        ...web,
        profile: { kind: 'https_spiffe', endpointSpiffeId: parseId('spiffe://peer.test/server') },
      } as const;
      assert.equal(await store.federation.update(web), false);
      assert.equal(await store.federation.create(web, bundle('peer.test')), true);
      assert.equal(await store.federation.create(spiffe), false);
      assert.deepEqual(await store.federation.get(peer), web);
      assert.equal(await store.federation.update(spiffe), true);
      assert.deepEqual(await store.federation.list(), [spiffe]);
      assert.equal(await store.federation.delete(peer), true);
      assert.equal(await store.federation.delete(peer), false);
      assert.deepEqual(await store.federation.list(), []);
      assert.ok(await store.bundles.get(peer));
      assert.deepEqual(
        (await wholeLog(store)).map((change) => change.kind),
        ['federation', 'bundle', 'federation', 'federation'],
      );
    });

    test('a journal document is written only over the version that was read', async (store) => {
      assert.equal(await store.journal.get('x509'), undefined);
      assert.equal(await store.journal.put('x509', 'one', 1), false);
      assert.equal(await store.journal.put('x509', 'one', 0), true);
      assert.equal(await store.journal.put('x509', 'two', 0), false);
      assert.equal(await store.journal.put('x509', 'two', 1), true);
      assert.deepEqual(await store.journal.get('x509'), { version: 2, text: 'two' });
      const won = await Promise.all(Array.from({ length: 20 }, (_, i) => store.journal.put('x509', `n${i}`, 2)));
      assert.equal(won.filter(Boolean).length, 1);
      await store.journal.put('x509@b', 'b', 0);
      await store.journal.put('x509@a', 'a', 0);
      assert.deepEqual(await store.journal.list('x509@'), [
        { name: 'x509@a', version: 1, text: 'a' },
        { name: 'x509@b', version: 1, text: 'b' },
      ]);
    });

    test('a database belongs to the trust domain that claimed it first', async (store) => {
      await store.claim(td);
      await store.claim(td);
      await assert.rejects(store.claim(peer), code('data/foreign'));
      await store.ping();
    });
  });

  describe(`${name}: change log`, () => {
    test('under 50 concurrent writers the log has no gap, and replayed it is what is stored', async (store) => {
      await Promise.all(
        Array.from({ length: 50 }, async (_, writer) => {
          const agent = `/spire/agent/x509pop/${writer}`;
          await store.nodes.attest(node(agent));
          const mine: StoredEntry[] = [];
          for (let i = 0; i < 6; i += 1) {
            mine.push(await create(store, draft(`/w/${writer}/${i}`, { parentId: id(agent) })));
            await store.entries.update([{ id: mine[0]!.id, patch: { hint: `h${i}` } }]);
            await store.nodes.renew(id(agent), `${i}`, i);
            await store.bundles.put(bundle(`td${writer % 7}`, { sequence: BigInt(i) }), 'any');
            // Outcomes that change nothing must leave no hole in the numbers.
            await store.entries.delete(['none']);
            await store.entries.create([{ draft: draft(`/w/${writer}/0`, { parentId: id(agent) }), stamp: stamp() }]);
          }
          if (writer % 3 === 0) await store.entries.delete([mine[1]!.id]);
          if (writer % 5 === 0) await store.nodes.delete(id(agent));
        }),
      );
      await assertLogIsWhole(store);
    });

    test('a write that fails takes nothing with it of those committed beside it', async (store) => {
      await create(store, draft('/x', { id: 'x' }));
      const failing = Array.from({ length: 20 }, (_, i) =>
        store.tokens.create({ value: `t${i}`, expiresAt: 1 }, { draft: draft(`/f${i}`, { id: 'x' }), stamp: stamp() }),
      );
      const working = Array.from({ length: 20 }, (_, i) => create(store, draft(`/w/${i}`)));
      const outcomes = await Promise.allSettled(failing.flatMap((one, i) => [one, working[i]!]));
      assert.deepEqual(
        outcomes.map((one) => one.status),
        Array.from({ length: 20 }, () => ['rejected', 'fulfilled']).flat(),
      );
      assert.equal((await store.entries.scan(0, 100)).length, 21);
      await assertLogIsWhole(store);
    });

    test('onAppend is told after the commit and before the write resolves, and not after it was ended', async (store) => {
      const told: number[] = [];
      const stop = store.log.onAppend((position) => told.push(position));
      await create(store, draft('/a'));
      assert.deepEqual(told, [1]);
      await store.entries.delete(['none']);
      assert.deepEqual(told, [1]);
      stop();
      await create(store, draft('/b'));
      assert.deepEqual(told, [1]);
      assert.equal(await store.log.position(), 2);
    });

    test('a reader that follows onAppend reads every change once, in order', async (store) => {
      const seen: number[] = [];
      let reading = Promise.resolve();
      store.log.onAppend(() => {
        reading = reading.then(async () => {
          for (const change of await store.log.read(seen.at(-1) ?? 0, 1000)) seen.push(change.position);
        });
      });
      await Promise.all(Array.from({ length: 100 }, (_, i) => create(store, draft(`/w/${i}`))));
      await reading;
      assert.deepEqual(
        seen,
        Array.from({ length: 100 }, (_, i) => i + 1),
      );
    });

    test('a reader behind the oldest change, or ahead of the newest, is refused instead of passing a gap', async (store) => {
      assert.equal(await store.log.position(), 0);
      assert.equal(await store.log.oldest(), 1);
      assert.deepEqual(await store.log.read(0, 10), []);
      for (let i = 0; i < 6; i += 1) await create(store, draft(`/w/${i}`));
      await store.log.prune(4);
      assert.equal(await store.log.oldest(), 5);
      await store.log.prune(2);
      assert.equal(await store.log.oldest(), 5);
      assert.deepEqual(
        (await store.log.read(4, 10)).map((change) => change.position),
        [5, 6],
      );
      await assert.rejects(store.log.read(7, 10), code('state/refused'));
      await store.log.prune(100);
      assert.equal(await store.log.oldest(), 7);
      assert.equal(await store.log.position(), 6);
      assert.equal((await create(store, draft('/w/6'))).seq, 7);
    });

    const issuance = (serial: string, over: Partial<Issuance> = {}): Issuance => ({
      serial,
      authority: 'ca',
      spiffeId: id('/web'),
      entryId: 'e1',
      agentId: id('/spire/agent/x509pop/one'),
      issuedAt: 1_000,
      expiresAt: 9_000,
      ...over,
    });
    const values = (done: readonly Revoked[]) =>
      done.map(({ revocation, already }) => `${revocation.value}${already ? ' already' : ''}`).sort();

    test('what was issued is found, and revoked by ID, entry or agent, up to a moment, once', async (store) => {
      const other = id('/spire/agent/x509pop/two');
      await store.revocations.record([
        issuance('1'),
        issuance('2', { entryId: 'e2' }),
        issuance('3', { spiffeId: id('/db'), agentId: other }),
        issuance('4', { issuedAt: 5_001 }),
        issuance('5', { expiresAt: 4_000 }),
      ]);
      assert.equal(await store.log.position(), 0, 'a record is no change');
      assert.deepEqual(
        await store.revocations.find('3', 5_000),
        issuance('3', { spiffeId: id('/db'), agentId: other }),
      );
      assert.equal(await store.revocations.find('5', 5_000), undefined, 'expired');
      assert.deepEqual(values(await store.revocations.addIssued('entry', 'e1', 5_000)), ['1', '3']);
      assert.deepEqual(values(await store.revocations.addIssued('subject', id('/web'), 5_000)), ['1 already', '2']);
      assert.deepEqual(values(await store.revocations.addIssued('agent', other, 5_000)), ['3 already']);
      assert.deepEqual(
        (await store.log.read(0, 10)).map((change) => change.kind === 'revocation' && change.key),
        ['serial:1', 'serial:3', 'serial:2'],
      );
      const [first] = (await store.revocations.list()).filter(({ value }) => value === '1');
      assert.deepEqual(first, {
        kind: 'serial',
        value: '1',
        revokedAt: 5_000,
        expiresAt: 9_000,
        authority: 'ca',
        spiffeId: id('/web'),
      });
    });

    test('denied tokens of a subject move on in time and never back', async (store) => {
      const tokens = (revokedAt: number): Revocation => ({
        kind: 'tokens',
        value: id('/web'),
        revokedAt,
        expiresAt: revokedAt + 10,
        authority: '',
        spiffeId: id('/web'),
      });
      await store.revocations.add([tokens(100)]);
      assert.equal((await store.revocations.add([tokens(90)]))[0]?.already, true);
      assert.equal((await store.revocations.add([tokens(200)]))[0]?.already, false);
      assert.deepEqual(await store.revocations.list(), [tokens(200)]);
    });

    test('a revocation list is replaced by one with a higher number alone', async (store) => {
      const crl = (number: string): StoredCrl => ({ authority: 'ca', number, expiresAt: 9_000, der: number });
      assert.equal(await store.revocations.putCrl(crl('9')), true);
      assert.equal(await store.revocations.putCrl(crl('9')), false);
      assert.equal(await store.revocations.putCrl(crl('10')), true, 'numbers, not texts');
      assert.deepEqual(await store.revocations.listCrls(), [crl('10')]);
    });

    test('pruning forgets what has ended and nothing that still counts', async (store) => {
      await store.revocations.record([
        issuance('1', { expiresAt: 2_000 }),
        issuance('2'),
        issuance('3', { expiresAt: 2_000 }),
      ]);
      await store.revocations.addIssued('subject', id('/web'), 1_500);
      await store.revocations.putCrl({ authority: 'old', number: '1', expiresAt: 1_999, der: '' });
      await store.revocations.putCrl({ authority: 'ca', number: '1', expiresAt: 9_000, der: '' });
      for (let pruned = 1; pruned > 0; ) pruned = await store.revocations.prune(2_001, 1);
      assert.deepEqual(
        (await store.revocations.list()).map(({ value }) => value),
        ['2'],
      );
      assert.deepEqual(
        (await store.revocations.listCrls()).map(({ authority }) => authority),
        ['ca'],
      );
      assert.ok(await store.revocations.find('2', 2_001));
      assert.equal(await store.revocations.find('1', 0), undefined);
    });

    test('after close every call is refused', async (store, reopen) => {
      await reopen();
      await assert.rejects(store.entries.get('x'), code('peer/unavailable'));
      await assert.rejects(store.ping(), code('peer/unavailable'));
      await store.close();
    });
  });

  if (!subject.durable) return;
  describe(`${name}: durability`, () => {
    test('a reopened store holds everything, and its log goes on', async (store, reopen) => {
      await store.claim(td);
      await store.bundles.put(bundle('peer.test'), 'any');
      await store.nodes.attest(node('/spire/agent/x509pop/one'));
      await store.tokens.create({ value: 'a', expiresAt: 10 });
      await store.journal.put('x509', 'text', 0);
      const entry = await create(store, draft('/web', { federatesWith: [parseTrustDomain('peer.test')] }));
      const before = await wholeLog(store);
      const again = await reopen();
      assert.equal(again.log.id, store.log.id);
      assert.deepEqual(await wholeLog(again), before);
      assert.deepEqual(await again.entries.get(entry.id), entry);
      assert.deepEqual(await again.tokens.get('a'), { value: 'a', expiresAt: 10 });
      assert.deepEqual(await again.journal.get('x509'), { version: 1, text: 'text' });
      await assert.rejects(again.claim(parseTrustDomain('other.test')), code('data/foreign'));
      await assertLogIsWhole(again);
      await create(again, draft('/later'));
      assert.equal(await again.log.position(), before.length + 1);
      await assertLogIsWhole(again);
    });

    test('a reopened store refuses a reader whose changes were forgotten', async (store, reopen) => {
      for (let i = 0; i < 4; i += 1) await create(store, draft(`/w/${i}`));
      await store.log.prune(2);
      const again = await reopen();
      assert.equal(await again.log.oldest(), 3);
      await assert.rejects(again.log.read(1, 10), code('state/refused'));
      assert.equal((await again.log.read(2, 10)).length, 2);
    });

    test('writes that were not awaited before close are there after it', async (store, reopen) => {
      const writes = Array.from({ length: 40 }, (_, i) => create(store, draft(`/w/${i}`)));
      const again = await reopen();
      await Promise.all(writes);
      assert.equal((await again.entries.scan(0, 100)).length, 40);
    });
  });
}
