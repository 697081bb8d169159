/** Registration entries over the admin socket: what may be written, what is found, what each item of a batch is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status } from '../../../src/errors.ts';
import { bundle } from '../../suites/store.ts';
import { api, type TestServer, testServer, wireId, wireSelectors } from '../../support/server.ts';

const parent = '/spire/agent/x509pop/one';
const web = { spiffe_id: wireId('/web'), parent_id: wireId(parent), selectors: wireSelectors('unix:uid:1') };
const attributes = { disable_x509_svid_prefetch: true, jwt_svid_include_jti: true };
// biome-ignore lint/suspicious/noExplicitAny: a message.
type Message = any;

const create = (server: TestServer, ...entries: object[]) =>
  server.admin.call('entry', 'BatchCreateEntry', { entries }).then(({ results }) => results as Message[]);
const update = (server: TestServer, entry: object, input_mask?: object, output_mask?: object) =>
  server.admin
    .call('entry', 'BatchUpdateEntry', { entries: [entry], input_mask, output_mask })
    .then(({ results }) => results[0] as Message);
const codes = (results: Message[]) => results.map(({ status }) => status.code);

test('BatchCreateEntry', async (t) => {
  const server = await testServer(t);
  await server.store.bundles.put(bundle('b.org'), 'any');
  let counter = 0;
  const fresh = (more: object = {}) => ({ ...web, spiffe_id: wireId(`/fresh-${++counter}`), ...more });

  await t.test('gives each item its result, in the order of the request, whatever becomes of the others', async () => {
    const results = await create(
      server,
      web,
      fresh({ selectors: [] }),
      web,
      fresh({ federates_with: ['nowhere.org'] }),
      fresh({ id: 'chosen' }),
      fresh({ id: 'chosen' }),
    );
    assert.deepEqual(codes(results), [
      0,
      Status.INVALID_ARGUMENT,
      Status.ALREADY_EXISTS,
      Status.INTERNAL,
      0,
      Status.ALREADY_EXISTS,
    ]);
    assert.deepEqual(results[0].status, { code: 0, message: 'OK' });
    assert.equal(results[2].status.message, 'similar entry already exists');
    assert.deepEqual(results[2].entry, results[0].entry, 'a similar entry comes back as it is');
    assert.match(results[3].status.message, /unable to find federated bundle "nowhere.org"/);
    assert.deepEqual([results[1].entry, results[3].entry, results[5].entry], [null, null, null]);
    assert.equal(results[4].entry.id, 'chosen');
  });

  await t.test('starts revisions at 0, dates with its clock, and keeps every field', async () => {
    const full = {
      ...fresh(),
      id: 'full',
      x509_svid_ttl: 60,
      jwt_svid_ttl: 30,
      federates_with: ['spiffe://b.org'],
      admin: true,
      downstream: true,
      expires_at: '1999999999',
      dns_names: ['web', '*.example.org'],
      store_svid: false,
      hint: 'é'.repeat(512),
      additional_attributes: attributes,
    };
    const [{ entry }] = await create(server, { ...full, revision_number: '7', created_at: '7' });
    assert.deepEqual(entry, {
      ...full,
      federates_with: ['b.org'],
      revision_number: '0',
      created_at: String(server.clock.now() / 1000),
      _additional_attributes: 'additional_attributes',
    });
    assert.deepEqual(await server.admin.call('entry', 'GetEntry', { id: 'full' }), entry);
  });

  await t.test('selectors are a set: another order, or one twice, is the same entry', async () => {
    const entry = fresh({ selectors: wireSelectors('a:1', 'b:2') });
    const [{ entry: first }] = await create(server, entry);
    for (const selectors of [wireSelectors('b:2', 'a:1'), wireSelectors('a:1', 'b:2', 'a:1')])
      assert.equal((await create(server, { ...entry, selectors }))[0].entry.id, first.id);
    for (const other of [
      { selectors: wireSelectors('a:1') },
      { selectors: wireSelectors('a:1', 'b:2', 'c:3') },
      { parent_id: wireId('/other') },
    ])
      assert.equal((await create(server, { ...entry, ...other }))[0].status.code, 0);
  });

  const refused: Record<string, [object, RegExp]> = {
    'no SPIFFE ID': [{ spiffe_id: null }, /SPIFFE ID is missing/],
    'an ID of another trust domain': [
      { spiffe_id: { trust_domain: 'b.org', path: '/a' } },
      /belongs to trust domain "b.org"/,
    ],
    'an ID without a path': [{ spiffe_id: { trust_domain: 'example.org', path: '' } }, /path is empty/],
    'a reserved ID': [{ spiffe_id: wireId('/spire/agent/x') }, /reserved/],
    'a path with dots': [{ spiffe_id: { trust_domain: 'example.org', path: '/a/../b' } }, /"\.\." segment/],
    'a path without a slash': [{ spiffe_id: { trust_domain: 'example.org', path: 'a' } }, /must begin with/],
    'an encoded path': [{ spiffe_id: { trust_domain: 'example.org', path: '/a%2Fb' } }, /character outside/],
    'a name that swallows a path': [
      { spiffe_id: { trust_domain: 'example.org/x', path: '/a' } },
      /trust domain "example.org\/x"/,
    ],
    'no parent': [{ parent_id: null }, /parent ID is missing/],
    'a foreign parent': [{ parent_id: { trust_domain: 'b.org', path: '/a' } }, /not a member/],
    'a parent without a path': [{ parent_id: { trust_domain: 'example.org', path: '' } }, /empty path/],
    'no selectors': [{ selectors: [] }, /selector list is empty/],
    'a selector type with a colon': [{ selectors: [{ type: 'a:b', value: 'c' }] }, /type contains ":"/],
    'an empty selector value': [{ selectors: [{ type: 'a', value: '' }] }, /value is empty/],
    'a NUL in a selector': [{ selectors: [{ type: 'a', value: 'b\0c' }] }, /NUL/],
    'a negative TTL': [{ x509_svid_ttl: -1 }, /X509-SVID TTL -1/],
    'a negative JWT TTL': [{ jwt_svid_ttl: -1 }, /JWT-SVID TTL -1/],
    'a negative expiry': [{ expires_at: '-1' }, /expiry "-1"/],
    'an expiry beyond all numbers': [{ expires_at: '9223372036854775807' }, /expiry/],
    'a DNS name with a space': [{ dns_names: ['a b'] }, /DNS name "a b"/],
    'a wildcard in the middle': [{ dns_names: ['a.*.b'] }, /malformed/],
    'a lone wildcard': [{ dns_names: ['*'] }, /wildcard needs a domain/],
    'an empty DNS name': [{ dns_names: [''] }, /empty/],
    'a trust domain that is none': [{ federates_with: ['B.org'] }, /upper-case/],
    'a hint over 1024 bytes': [{ hint: `${'é'.repeat(512)}x` }, /longer than 1024 bytes/],
    'an id with a slash': [{ id: 'a/b' }, /entry id "a\/b"/],
    'an id over 255 characters': [{ id: 'x'.repeat(256) }, /entry id/],
    'a stored SVID by two kinds of selector': [
      { store_svid: true, selectors: wireSelectors('a:1', 'b:1') },
      /one type only/,
    ],
    'a stored SVID without prefetch': [
      { store_svid: true, additional_attributes: { disable_x509_svid_prefetch: true } },
      /cannot disable the prefetch/,
    ],
    'more than fits a message': [{ selectors: wireSelectors(`a:${'x'.repeat(200_000)}`) }, /at most 131072/],
  };
  for (const [what, [wrong, says]] of Object.entries(refused)) {
    await t.test(`refuses ${what}, on update too`, async () => {
      const before = (await server.admin.call('entry', 'CountEntries')).count;
      const [{ status, entry }] = await create(server, fresh(wrong));
      assert.deepEqual([status.code, entry], [Status.INVALID_ARGUMENT, null]);
      assert.match(status.message, says);
      assert.equal((await server.admin.call('entry', 'CountEntries')).count, before);
      if ('id' in wrong) return;
      const [{ entry: stored }] = await create(server, fresh());
      const mask = Object.fromEntries(Object.keys(wrong).map((field) => [field, true]));
      for (const input_mask of [undefined, mask]) {
        const outcome = await update(server, { ...stored, ...wrong }, input_mask);
        assert.equal(outcome.status.code, Status.INVALID_ARGUMENT);
        assert.match(outcome.status.message, says);
      }
      assert.deepEqual(await server.admin.call('entry', 'GetEntry', { id: stored.id }), stored);
    });
  }

  await t.test('an empty batch has no results', async () => assert.deepEqual(await create(server), []));
});

test('BatchUpdateEntry and BatchDeleteEntry', async (t) => {
  const server = await testServer(t);
  await server.store.bundles.put(bundle('b.org'), 'any');
  const original = {
    ...web,
    x509_svid_ttl: 60,
    jwt_svid_ttl: 30,
    federates_with: ['b.org'],
    admin: true,
    downstream: true,
    expires_at: '5000000000',
    dns_names: ['web'],
    hint: 'h',
    additional_attributes: attributes,
  };
  let number = 0;
  const make = async () => (await create(server, { ...original, spiffe_id: wireId(`/web-${++number}`) }))[0].entry;

  await t.test(
    'without a mask everything is overwritten, attributes whole; the revision rises by one each time',
    async () => {
      const entry = await make();
      const { entry: changed } = await update(server, {
        ...web,
        id: entry.id,
        additional_attributes: { jwt_svid_include_jti: true },
      });
      assert.deepEqual(
        [
          changed.x509_svid_ttl,
          changed.federates_with,
          changed.admin,
          changed.downstream,
          changed.expires_at,
          changed.dns_names,
          changed.hint,
        ],
        [0, [], false, false, '0', [], ''],
      );
      assert.deepEqual(changed.additional_attributes, {
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: true,
      });
      assert.deepEqual([changed.revision_number, changed.created_at], ['1', entry.created_at]);
      const { entry: again } = await update(server, { ...web, id: entry.id, revision_number: '99' });
      assert.deepEqual([again.revision_number, again.additional_attributes], ['2', undefined]);
    },
  );

  const values: Record<string, unknown> = {
    spiffe_id: wireId('/changed'),
    parent_id: wireId('/changed-parent'),
    selectors: wireSelectors('c:1'),
    x509_svid_ttl: 61,
    federates_with: [],
    admin: false,
    downstream: false,
    expires_at: '5000000001',
    dns_names: ['changed'],
    store_svid: true,
    jwt_svid_ttl: 31,
    hint: 'changed',
    additional_attributes: { disable_x509_svid_prefetch: false, jwt_svid_include_jti: false },
  };
  for (const [field, value] of Object.entries(values)) {
    await t.test(`SPIRE 1.14.3 Clone: with a mask of ${field} only that field changes`, async () => {
      const entry = await make();
      if (field === 'store_svid') {
        const { status } = await update(
          server,
          { ...entry, additional_attributes: null },
          { additional_attributes: true },
        );
        assert.equal(status.code, 0);
      }
      const before = await server.admin.call('entry', 'GetEntry', { id: entry.id });
      const everything = { ...values, id: entry.id, store_svid: true, [field]: value };
      const { status, entry: changed } = await update(server, everything, { [field]: true });
      assert.deepEqual([status.code, status.message], [0, 'OK']);
      const expected = { ...before, [field]: value, revision_number: String(Number(before.revision_number) + 1) };
      if (field === 'additional_attributes') {
        delete expected.additional_attributes;
        delete expected._additional_attributes;
      }
      assert.deepEqual(changed, expected);
    });
  }

  await t.test('an empty mask changes nothing but the revision; its own bit does nothing', async () => {
    const entry = await make();
    for (const [count, mask] of [{}, { revision_number: true, created_at: true }].entries()) {
      const { entry: changed } = await update(server, { id: entry.id, revision_number: '50', created_at: '50' }, mask);
      assert.deepEqual(changed, { ...entry, revision_number: String(count + 1) });
    }
  });

  await t.test(
    'no similarity is looked for; what is not there is NOT_FOUND; an unknown bundle changes nothing',
    async () => {
      const [one, two] = [await make(), await make()];
      assert.equal((await update(server, { ...one, id: two.id })).status.code, 0);
      assert.deepEqual((await update(server, { ...one, id: 'none' })).status, {
        code: Status.NOT_FOUND,
        message: 'entry not found',
      });
      assert.equal((await update(server, { ...one, id: '' })).status.code, Status.INVALID_ARGUMENT);
      assert.equal((await update(server, { ...one, federates_with: ['nowhere.org'] })).status.code, Status.INTERNAL);
      assert.equal((await server.admin.call('entry', 'GetEntry', { id: one.id })).revision_number, '0');
    },
  );

  await t.test('output masks zero what they do not name, and never the id', async () => {
    const entry = await make();
    const { entry: shown } = await update(server, entry, {}, { hint: true });
    assert.deepEqual(
      [shown.id, shown.hint, shown.spiffe_id, shown.selectors, shown.revision_number],
      [entry.id, 'h', null, [], '0'],
    );
    const got = await server.admin.call('entry', 'GetEntry', { id: entry.id, output_mask: { admin: true } });
    assert.deepEqual([got.id, got.admin, got.downstream, got.parent_id], [entry.id, true, false, null]);
    const { results } = await server.admin.call('entry', 'BatchCreateEntry', {
      entries: [{ ...original, id: 'masked', parent_id: wireId('/m') }],
      output_mask: {},
    });
    assert.deepEqual([results[0].entry.id, results[0].entry.spiffe_id], ['masked', null]);
  });

  await t.test('deletes, and tells of each id whether it was there', async () => {
    const [one, two] = [await make(), await make()];
    const { results } = await server.admin.call('entry', 'BatchDeleteEntry', {
      ids: [one.id, '', 'none', two.id, one.id],
    });
    assert.deepEqual(codes(results), [0, Status.INVALID_ARGUMENT, Status.NOT_FOUND, 0, Status.NOT_FOUND]);
    assert.deepEqual(
      results.map(({ id }: Message) => id),
      [one.id, '', 'none', two.id, one.id],
    );
    assert.equal((await server.admin.refusal('entry', 'GetEntry', { id: one.id })).message, 'entry not found');
    assert.equal((await server.admin.refusal('entry', 'GetEntry', { id: '' })).status, Status.INVALID_ARGUMENT);
  });

  await t.test('one deleted and made again with its id is told apart by its time', async () => {
    await create(server, { ...web, id: 'again', spiffe_id: wireId('/again') });
    await server.clock.advance(5000);
    await server.admin.call('entry', 'BatchDeleteEntry', { ids: ['again'] });
    const [{ entry }] = await create(server, { ...web, id: 'again', spiffe_id: wireId('/again') });
    assert.deepEqual([entry.revision_number, entry.created_at], ['0', String(server.clock.now() / 1000)]);
  });
});

test('ListEntries and CountEntries', async (t) => {
  const server = await testServer(t);
  for (const name of ['b.org', 'c.org']) await server.store.bundles.put(bundle(name), 'any');
  const entries = [
    { id: 'e1', spiffe_id: wireId('/web'), parent_id: wireId(parent), selectors: wireSelectors('a:1') },
    {
      id: 'e2',
      spiffe_id: wireId('/web'),
      parent_id: wireId('/alias'),
      selectors: wireSelectors('a:1', 'b:2'),
      hint: 'internal',
      downstream: true,
    },
    {
      id: 'e3',
      spiffe_id: wireId('/db'),
      parent_id: wireId(parent),
      selectors: wireSelectors('c:3'),
      federates_with: ['b.org'],
    },
    {
      id: 'e4',
      spiffe_id: wireId('/db'),
      parent_id: wireId(parent),
      selectors: wireSelectors('a:1', 'b:2', 'c:3'),
      federates_with: ['b.org', 'c.org'],
    },
    {
      id: 'e5',
      spiffe_id: wireId('/job'),
      parent_id: wireId(parent),
      selectors: wireSelectors('d:4'),
      hint: 'internal',
      downstream: true,
    },
  ];
  assert.deepEqual(codes(await create(server, ...entries)), [0, 0, 0, 0, 0]);
  const find = async (filter: object, more: object = {}) =>
    ((await server.admin.call('entry', 'ListEntries', { filter, ...more })).entries as Message[])
      .map((entry) => entry.id)
      .join(' ');

  const filters: [what: string, filter: object, found: string][] = [
    ['nothing', {}, 'e1 e2 e3 e4 e5'],
    ['a SPIFFE ID', { by_spiffe_id: wireId('/web') }, 'e1 e2'],
    ['a parent', { by_parent_id: wireId(parent) }, 'e1 e3 e4 e5'],
    ['a SPIFFE ID and a parent', { by_spiffe_id: wireId('/db'), by_parent_id: wireId(parent) }, 'e3 e4'],
    ['a parent that has none', { by_parent_id: wireId('/nobody') }, ''],
    [
      'exactly these selectors',
      { by_selectors: { selectors: wireSelectors('b:2', 'a:1'), match: 'MATCH_EXACT' } },
      'e2',
    ],
    [
      'a subset of these selectors',
      { by_selectors: { selectors: wireSelectors('a:1', 'b:2'), match: 'MATCH_SUBSET' } },
      'e1 e2',
    ],
    [
      'a superset of these selectors',
      { by_selectors: { selectors: wireSelectors('a:1', 'b:2'), match: 'MATCH_SUPERSET' } },
      'e2 e4',
    ],
    [
      'any of these selectors',
      { by_selectors: { selectors: wireSelectors('b:2', 'd:4'), match: 'MATCH_ANY' } },
      'e2 e4 e5',
    ],
    [
      'exactly these federated domains',
      { by_federates_with: { trust_domains: ['b.org'], match: 'MATCH_EXACT' } },
      'e3',
    ],
    [
      'a superset of federated domains',
      { by_federates_with: { trust_domains: ['spiffe://b.org'], match: 'MATCH_SUPERSET' } },
      'e3 e4',
    ],
    ['any federated domain', { by_federates_with: { trust_domains: ['c.org', 'd.org'], match: 'MATCH_ANY' } }, 'e4'],
    ['a hint', { by_hint: { value: 'internal' } }, 'e2 e5'],
    ['the empty hint', { by_hint: { value: '' } }, 'e1 e3 e4'],
    ['downstream', { by_downstream: { value: true } }, 'e2 e5'],
    ['not downstream, which is no filter', { by_downstream: { value: false } }, 'e1 e2 e3 e4 e5'],
    [
      'several at once',
      { by_downstream: { value: true }, by_hint: { value: 'internal' }, by_spiffe_id: wireId('/web') },
      'e2',
    ],
  ];
  for (const [what, filter, found] of filters) {
    await t.test(
      `by ${what}; pages of any size give the same, each full but the last, and the count agrees`,
      async () => {
        assert.equal(await find(filter), found);
        const { count } = await server.admin.call('entry', 'CountEntries', { filter });
        const expected = found === '' ? [] : found.split(' ');
        assert.equal(count, expected.length);
        for (const page_size of [1, 2, 5, 2 ** 31 - 1]) {
          const seen: string[] = [];
          let page_token = '';
          do {
            const page: Message = await server.admin.call('entry', 'ListEntries', { filter, page_size, page_token });
            assert.ok(
              page.entries.length === page_size || page.next_page_token === '',
              'the filter comes before the cut',
            );
            seen.push(...page.entries.map(({ id }: Message) => id));
            page_token = page.next_page_token;
          } while (page_token !== '');
          assert.deepEqual(seen, expected);
        }
      },
    );
  }

  for (const [what, filter] of [
    ['an empty selector set', { by_selectors: { selectors: [], match: 'MATCH_ANY' } }],
    ['an empty set of domains', { by_federates_with: { trust_domains: [] } }],
    ['a malformed selector', { by_selectors: { selectors: [{ type: '', value: 'x' }] } }],
    ['an unknown way to match', { by_selectors: { selectors: wireSelectors('a:1'), match: 17 } }],
    ['a foreign SPIFFE ID', { by_spiffe_id: { trust_domain: 'b.org', path: '/a' } }],
    ['an agent as a SPIFFE ID', { by_spiffe_id: wireId(parent) }],
    ['a foreign parent', { by_parent_id: { trust_domain: 'b.org', path: '/a' } }],
    ['a malformed domain', { by_federates_with: { trust_domains: ['B.org'] } }],
  ] as [string, object][]) {
    await t.test(`a filter with ${what} is refused`, async () => {
      for (const method of ['ListEntries', 'CountEntries'])
        assert.equal((await server.admin.refusal('entry', method, { filter })).status, Status.INVALID_ARGUMENT);
    });
  }

  await t.test('a token that was not given is refused, and ignored without a page size', async () => {
    for (const page_token of ['x', '-1', '1.5', '99999999999999999999', ' 1']) {
      assert.equal(
        (await server.admin.refusal('entry', 'ListEntries', { page_size: 1, page_token })).status,
        Status.INVALID_ARGUMENT,
      );
      assert.equal(await find({}, { page_token }), 'e1 e2 e3 e4 e5');
    }
  });

  await t.test('a page goes on where the last one ended, though entries came, went and changed between', async () => {
    const first = await server.admin.call('entry', 'ListEntries', { page_size: 2 });
    await server.admin.call('entry', 'BatchDeleteEntry', { ids: ['e2'] });
    await update(server, { ...entries[0], hint: 'new' });
    await create(server, { ...entries[1], id: 'e6' });
    const { entries: rest } = await server.admin.call('entry', 'ListEntries', {
      page_size: 10,
      page_token: first.next_page_token,
    });
    assert.deepEqual(
      rest.map(({ id }: Message) => id),
      ['e3', 'e4', 'e5', 'e6'],
    );
    assert.equal(await find({ by_parent_id: wireId(parent) }), 'e1 e3 e4 e5', 'in creation order, changed or not');
  });

  await t.test('a list can be masked', async () => {
    const { entries: shown } = await server.admin.call('entry', 'ListEntries', {
      output_mask: { selectors: true },
      page_size: 1,
    });
    assert.deepEqual([shown[0].id, shown[0].selectors, shown[0].spiffe_id], ['e1', wireSelectors('a:1'), null]);
  });
});

test('agents and their entries', async (t) => {
  const server = await testServer(t);
  const agent = await server.attest();
  const agentId = wireId(agent.id.slice(20));
  const sync = async (
    conversation: (
      talk: { send(message: object): Promise<void>; end(): void },
      next: () => Promise<Message>,
    ) => Promise<void>,
  ) => {
    const talk = agent.channel.bidi(api.entry, 'SyncAuthorizedEntries');
    await conversation(talk, async () => {
      const { value, done } = await talk.responses.next();
      return done ? 'end' : value;
    });
  };
  const make = async (from: number, to: number) => {
    const wanted = Array.from({ length: to - from }, (_, index) => ({
      ...web,
      id: `e${from + index}`,
      spiffe_id: wireId(`/web-${from + index}`),
      parent_id: agentId,
    }));
    assert.ok(codes(await create(server, ...wanted)).every((code) => code === 0));
  };
  await make(0, 500);

  await t.test('an agent holds its own and what hangs on its aliases, of other agents nothing', async () => {
    const other = await server.attest();
    await server.entry('/others', other.id);
    const { entries } = await agent.call('entry', 'GetAuthorizedEntries', { output_mask: { spiffe_id: true } });
    assert.equal(entries.length, 500);
    assert.deepEqual([entries[0].spiffe_id, entries[0].selectors], [wireId('/web-0'), []]);
    assert.equal((await other.call('entry', 'GetAuthorizedEntries')).entries.length, 1);
  });

  await t.test('up to 500 entries come whole in one message, and the stream ends', () =>
    sync(async (talk, next) => {
      await talk.send({ output_mask: { spiffe_id: true, revision_number: true } });
      const message = await next();
      assert.deepEqual([message.entries.length, message.entry_revisions.length, message.more], [500, 0, false]);
      assert.deepEqual(
        [message.entries[0].spiffe_id, message.entries[0].selectors, message.entries[0].created_at],
        [wireId('/web-0'), [], '0'],
      );
      assert.equal(await next(), 'end');
    }),
  );

  await make(500, 1201);
  await t.test('more come as revisions in pages; then whatever is asked for, in pages, unknown ids left out', () =>
    sync(async (talk, next) => {
      await talk.send({ output_mask: { spiffe_id: true, revision_number: true, created_at: true } });
      const pages = [await next(), await next(), await next()];
      assert.deepEqual(
        pages.map((page) => [page.entry_revisions.length, page.entries.length, page.more]),
        [
          [500, 0, true],
          [500, 0, true],
          [201, 0, false],
        ],
      );
      const ids = pages.flatMap((page) => page.entry_revisions.map(({ id }: Message) => id));
      assert.equal(new Set(ids).size, 1201);
      assert.deepEqual(pages[0].entry_revisions[0], {
        id: 'e0',
        revision_number: '0',
        created_at: String(server.clock.now() / 1000),
      });

      await talk.send({ ids: ['e7', 'nobody', 'e8', 'e7'] });
      const asked = await next();
      assert.deepEqual(
        [asked.entries.map(({ id }: Message) => id), asked.more, asked.entry_revisions],
        [['e7', 'e8'], false, []],
      );
      await talk.send({ ids });
      const answers = [await next(), await next(), await next()];
      assert.deepEqual(
        answers.map((page) => [page.entries.length, page.more]),
        [
          [500, true],
          [500, true],
          [201, false],
        ],
      );
      await talk.send({ ids: ['nobody'] });
      const none = await next();
      assert.deepEqual([none.entries, none.more], [[], false], 'every request is answered');
      talk.end();
      assert.equal(await next(), 'end', 'half-closing is success');
    }),
  );

  await t.test('few but large entries are paged by weight, so that no message grows over 1 MB', async () => {
    const heavy = await server.attest();
    const selectors = wireSelectors(...Array.from({ length: 40 }, (_, index) => `a:${'x'.repeat(900)}${index}`));
    const entries = Array.from({ length: 60 }, (_, index) => ({
      ...web,
      spiffe_id: wireId(`/heavy-${index}`),
      parent_id: wireId(heavy.id.slice(20)),
      selectors,
    }));
    for (let start = 0; start < 60; start += 30) await create(server, ...entries.slice(start, start + 30));
    const talk = heavy.channel.bidi(api.entry, 'SyncAuthorizedEntries');
    await talk.send({});
    const { entry_revisions } = (await talk.responses.next()).value;
    assert.equal(entry_revisions.length, 60);
    await talk.send({ ids: entry_revisions.map(({ id }: Message) => id) });
    let seen = 0;
    for (let more = true; more; ) {
      const page = (await talk.responses.next()).value;
      assert.ok(page.entries.length <= 28);
      seen += page.entries.length;
      more = page.more;
    }
    assert.equal(seen, 60);
    talk.end();
  });

  await t.test('the first message may name no ids, and the mask must keep revisions', async () => {
    for (const [first, says] of [
      [{ ids: ['e1'] }, /IDs on initial request/],
      [{ output_mask: { spiffe_id: true } }, /revision number cannot be masked/],
    ] as const) {
      const talk = agent.channel.bidi(api.entry, 'SyncAuthorizedEntries');
      void talk.send(first);
      await assert.rejects(
        talk.responses.next(),
        (error: Message) => error.status === Status.INVALID_ARGUMENT && says.test(error.message),
      );
    }
  });

  await t.test('a stream that ends before its first message is no failure', () =>
    sync(async (talk, next) => {
      talk.end();
      assert.equal(await next(), 'end');
    }),
  );

  await t.test('a stream that is cancelled is no failure of the server', async () => {
    const leaving = new AbortController();
    const talk = agent.channel.bidi(api.entry, 'SyncAuthorizedEntries', { signal: leaving.signal });
    await talk.send({});
    await talk.responses.next();
    leaving.abort(new Error('enough'));
    await assert.rejects(
      talk.responses
        .next()
        .then(() => talk.responses.next())
        .then(() => talk.responses.next()),
    );
    await agent.call('sync', 'Position');
    assert.ok(
      !server.lines.some((line) => /"level":"(error|warn)"/.test(line) && line.includes('SyncAuthorizedEntries')),
    );
  });
});

test('an update of an entry that is not in memory yet is checked all the same', async (t) => {
  const server = await testServer(t);
  const { status } = await update(
    server,
    { id: 'unknown', spiffe_id: { trust_domain: 'b.org', path: '/a' } },
    { spiffe_id: true },
  );
  assert.equal(status.code, Status.INVALID_ARGUMENT, 'it is refused before anybody looks whether it is there');
  assert.equal((await update(server, { id: 'unknown', hint: 'fine' }, { hint: true })).status.code, Status.NOT_FOUND);
});
