/** Bundles over the API: the own one, which grows and is deduplicated, and foreign ones, by batch. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { Status } from '../../../src/errors.ts';
import { testAuthority } from '../../support/ca.ts';
import { id, testServer } from '../../support/server.ts';

// biome-ignore lint/suspicious/noExplicitAny: a message.
type Message = any;
const now = Date.UTC(2030, 0, 1);
const ca = testAuthority({ trustDomain: 'b.org', now });
const spki = () => generateKey('ec-p256').publicKey.export({ format: 'der', type: 'spki' });
const jwt = (key_id: string, more: object = {}) => ({ key_id, public_key: spki(), expires_at: '0', ...more });
const b = {
  trust_domain: 'b.org',
  x509_authorities: [{ asn1: ca.der }],
  jwt_authorities: [jwt('k1', { expires_at: '7000000000', tainted: true })],
  refresh_hint: '60',
  sequence_number: '18446744073709551615',
};
const codes = (results: Message[]) => results.map(({ status }) => status.code);

test('the own bundle', async (t) => {
  const server = await testServer(t);
  const get = (more: object = {}): Promise<Message> => server.nobody.call('bundle', 'GetBundle', more);

  await t.test('is there for everybody, masked as asked', async () => {
    const whole = await get();
    assert.deepEqual(
      [whole.trust_domain, whole.x509_authorities.length, whole.jwt_authorities.length, whole.refresh_hint],
      ['example.org', 1, 1, '300'],
    );
    const none = await get({ output_mask: {} });
    assert.deepEqual(
      [none.trust_domain, none.x509_authorities, none.jwt_authorities, none.refresh_hint, none.sequence_number],
      ['example.org', [], [], '0', '0'],
    );
    const some = await get({ output_mask: { jwt_authorities: true, sequence_number: true } });
    assert.deepEqual(
      [some.x509_authorities, some.jwt_authorities, some.sequence_number],
      [[], whole.jwt_authorities, whole.sequence_number],
    );
  });

  await t.test('AppendBundle adds what is new, once, untainted, and raises the sequence only then', async () => {
    const before = await get();
    const other = testAuthority({ now });
    const key = jwt('appended', { tainted: true });
    const request = {
      x509_authorities: [{ asn1: other.der, tainted: true }, { asn1: other.der }],
      jwt_authorities: [key, key],
      wit_authorities: [jwt('ignored')],
    };
    const after: Message = await server.admin.call('bundle', 'AppendBundle', request);
    assert.equal(BigInt(after.sequence_number), BigInt(before.sequence_number) + 1n);
    assert.deepEqual(after.x509_authorities.slice(1), [{ asn1: other.der, tainted: false }]);
    assert.deepEqual(
      after.jwt_authorities.slice(1).map((one: Message) => [one.key_id, one.tainted]),
      [['appended', false]],
    );
    assert.deepEqual(after.wit_authorities, []);
    assert.deepEqual(await server.admin.call('bundle', 'AppendBundle', request), after);
    assert.deepEqual(await get(), after);
    const masked = await server.admin.call('bundle', 'AppendBundle', {
      ...request,
      output_mask: { refresh_hint: true },
    });
    assert.deepEqual([masked.x509_authorities, masked.refresh_hint], [[], '300']);
  });

  for (const [what, request, says] of [
    ['nothing', {}, /no authorities/],
    ['only WIT authorities', { wit_authorities: [jwt('w')] }, /no authorities/],
    [
      'bytes that are no certificate',
      { x509_authorities: [{ asn1: Buffer.from('x') }] },
      /authority 0 .* is not one DER certificate/,
    ],
    [
      'two certificates in one',
      { x509_authorities: [{ asn1: Buffer.concat([ca.der, ca.der]) }] },
      /not one DER certificate/,
    ],
    ['a key without an ID', { jwt_authorities: [jwt('')] }, /no key ID/],
    [
      'a key that is none',
      { jwt_authorities: [{ key_id: 'k', public_key: Buffer.from('x') }] },
      /"k" .* is not a public key/,
    ],
    ['a negative expiry', { jwt_authorities: [jwt('k', { expires_at: '-1' })] }, /key expiry "-1"/],
    [
      'another key under an ID that is taken',
      { jwt_authorities: [jwt('appended')] },
      /"appended" is in the bundle already, with another key/,
    ],
  ] as [string, object, RegExp][]) {
    await t.test(`AppendBundle refuses ${what}`, async () => {
      const before = await get();
      const fault = await server.admin.refusal('bundle', 'AppendBundle', request);
      assert.equal(fault.status, Status.INVALID_ARGUMENT);
      assert.match(fault.message, says);
      assert.deepEqual(await get(), before);
    });
  }

  await t.test('parallel edits are all kept', async () => {
    await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        server.admin.call('bundle', 'AppendBundle', { jwt_authorities: [jwt(`parallel-${index}`)] }),
      ),
    );
    const names = (await get()).jwt_authorities.map((one: Message) => one.key_id);
    for (let index = 0; index < 20; index++) assert.ok(names.includes(`parallel-${index}`));
  });

  await t.test('a downstream server publishes its JWT keys, up to a number that keeps the bundle small', async () => {
    await server.entry('/nested', id('/spire/agent/x'), { downstream: true });
    const nested = server.as(await server.mint('/nested'));
    const { jwt_authorities } = await nested.call('bundle', 'PublishJWTAuthority', {
      jwt_authority: jwt('nested', { expires_at: '2000000000' }),
    });
    assert.equal(jwt_authorities.at(-1).key_id, 'nested');
    assert.equal((await get()).jwt_authorities.length, jwt_authorities.length);
    assert.equal((await nested.refusal('bundle', 'PublishJWTAuthority')).status, Status.INVALID_ARGUMENT);
    assert.equal(
      (await nested.refusal('bundle', 'PublishJWTAuthority', { jwt_authority: jwt('nested') })).status,
      Status.INVALID_ARGUMENT,
    );
    assert.equal((await nested.refusal('bundle', 'PublishWITAuthority')).status, Status.UNIMPLEMENTED);
    const public_key = spki();
    const many = Array.from({ length: 501 - jwt_authorities.length }, (_, index) => ({
      key_id: `m${index}`,
      public_key,
    }));
    assert.equal(
      (await server.admin.refusal('bundle', 'AppendBundle', { jwt_authorities: many })).status,
      Status.RESOURCE_EXHAUSTED,
    );
    await server.admin.call('bundle', 'AppendBundle', { jwt_authorities: many.slice(1) });
    assert.equal(
      (await nested.refusal('bundle', 'PublishJWTAuthority', { jwt_authority: jwt('one too many') })).status,
      Status.RESOURCE_EXHAUSTED,
    );
  });
});

test('foreign bundles', async (t) => {
  const server = await testServer(t);
  const batch = async (method: string, request: object): Promise<Message[]> =>
    (await server.admin.call('bundle', method, request)).results;
  const stored = (trust_domain = 'b.org'): Promise<Message> =>
    server.admin.call('bundle', 'GetFederatedBundle', { trust_domain });

  await t.test(
    'one is created as given, its sequence too, and not twice; its domain may be named by an ID',
    async () => {
      const results = await batch('BatchCreateFederatedBundle', {
        bundle: [
          b,
          b,
          { ...b, trust_domain: 'example.org' },
          { ...b, trust_domain: 'B.org' },
          { ...b, trust_domain: 'spiffe://c.org/any' },
        ],
      });
      assert.deepEqual(codes(results), [0, Status.ALREADY_EXISTS, Status.INVALID_ARGUMENT, Status.INVALID_ARGUMENT, 0]);
      assert.equal(results[1].status.message, 'bundle already exists');
      assert.deepEqual(
        results.map(({ bundle }) => bundle?.trust_domain),
        ['b.org', undefined, undefined, undefined, 'c.org'],
      );
      const kept = await stored();
      assert.deepEqual(
        [kept.sequence_number, kept.refresh_hint, kept.jwt_authorities[0].tainted],
        ['18446744073709551615', '60', true],
      );
      assert.equal((await server.admin.call('bundle', 'CountBundles')).count, 3, 'the own one is counted');
    },
  );

  await t.test('one bad authority refuses its bundle and no other', async () => {
    const bad = { ...b, trust_domain: 'd.org', x509_authorities: [{ asn1: Buffer.from('x') }] };
    const results = await batch('BatchSetFederatedBundle', {
      bundle: [bad, { ...b, trust_domain: 'e.org' }, { ...b, refresh_hint: '-1' }],
    });
    assert.deepEqual(codes(results), [Status.INVALID_ARGUMENT, 0, Status.INVALID_ARGUMENT]);
    assert.equal(
      (await server.admin.refusal('bundle', 'GetFederatedBundle', { trust_domain: 'd.org' })).status,
      Status.NOT_FOUND,
    );
  });

  const masks: Record<string, unknown> = {
    x509_authorities: [],
    jwt_authorities: [],
    refresh_hint: '61',
    sequence_number: '5',
  };
  for (const [field, value] of Object.entries(masks)) {
    await t.test(`an update with a mask of ${field} changes that alone`, async () => {
      await batch('BatchSetFederatedBundle', { bundle: [b] });
      const before = await stored();
      const changed = { trust_domain: 'b.org', ...masks };
      const [{ status, bundle }] = await batch('BatchUpdateFederatedBundle', {
        bundle: [changed],
        input_mask: { [field]: true },
      });
      assert.equal(status.code, 0);
      assert.deepEqual(bundle, { ...before, [field]: value });
      assert.deepEqual(await stored(), bundle);
    });
  }

  await t.test(
    'an update of none is NOT_FOUND, without a mask everything is replaced, the output can be masked',
    async () => {
      const results = await batch('BatchUpdateFederatedBundle', {
        bundle: [{ ...b, trust_domain: 'nobody.org' }, { trust_domain: 'b.org' }],
        output_mask: {},
      });
      assert.deepEqual(codes(results), [Status.NOT_FOUND, 0]);
      assert.deepEqual((await stored()).x509_authorities, []);
      assert.deepEqual([results[1].bundle.trust_domain, results[1].bundle.sequence_number], ['b.org', '0']);
    },
  );

  await t.test('the own bundle is no federated one, to read or to write', async () => {
    for (const trust_domain of ['example.org', 'spiffe://example.org', 'spiffe://example.org/x']) {
      assert.equal(
        (await server.admin.refusal('bundle', 'GetFederatedBundle', { trust_domain })).status,
        Status.INVALID_ARGUMENT,
      );
      for (const method of ['BatchCreateFederatedBundle', 'BatchUpdateFederatedBundle', 'BatchSetFederatedBundle'])
        assert.deepEqual(codes(await batch(method, { bundle: [{ ...b, trust_domain }] })), [Status.INVALID_ARGUMENT]);
      assert.deepEqual(
        codes(await batch('BatchDeleteFederatedBundle', { trust_domains: [trust_domain], mode: 'DELETE' })),
        [Status.INVALID_ARGUMENT],
      );
    }
  });

  await t.test('agents may read them too', async () => {
    const agent = await server.attest();
    assert.equal((await agent.call('bundle', 'GetFederatedBundle', { trust_domain: 'b.org' })).trust_domain, 'b.org');
    assert.equal(
      (await agent.refusal('bundle', 'GetFederatedBundle', { trust_domain: 'nobody.org' })).status,
      Status.NOT_FOUND,
    );
  });

  await t.test('pages hold no own bundle, are full, and go on though the last one shown is gone', async () => {
    await batch('BatchSetFederatedBundle', {
      bundle: ['a.org', 'z.org', 'y.org'].map((trust_domain) => ({ ...b, trust_domain })),
    });
    const list = (more: object): Promise<Message> => server.admin.call('bundle', 'ListFederatedBundles', more);
    const names = ({ bundles }: Message) => bundles.map((one: Message) => one.trust_domain);
    assert.deepEqual(names(await list({})), ['a.org', 'b.org', 'c.org', 'e.org', 'y.org', 'z.org']);
    const first = await list({ page_size: 2 });
    assert.deepEqual(names(first), ['a.org', 'b.org']);
    await batch('BatchDeleteFederatedBundle', { trust_domains: ['a.org', 'b.org'] });
    const second = await list({ page_size: 2, page_token: first.next_page_token });
    assert.deepEqual(names(second), ['c.org', 'e.org']);
    const third = await list({ page_size: 2, page_token: second.next_page_token });
    assert.deepEqual([names(third), third.next_page_token], [['y.org', 'z.org'], '']);
    assert.equal((await list({ output_mask: {} })).bundles[0].sequence_number, '0');
    assert.equal(
      (await server.admin.refusal('bundle', 'ListFederatedBundles', { page_size: 2, page_token: 'A B' })).status,
      Status.INVALID_ARGUMENT,
    );
  });

  await t.test(
    'deleting one with linked entries: RESTRICT refuses, DISSOCIATE unlinks, DELETE deletes them',
    async () => {
      await batch('BatchSetFederatedBundle', { bundle: [b] });
      const entry = await server.entry('/linked', id('/spire/agent/x'), { federates_with: ['b.org', 'c.org'] });
      const remove = (mode?: string | number) =>
        batch('BatchDeleteFederatedBundle', { trust_domains: ['spiffe://b.org'], ...(mode !== undefined && { mode }) });
      for (const mode of [undefined, 'RESTRICT']) {
        const [{ status, trust_domain }] = await remove(mode);
        assert.deepEqual(
          [status.code, trust_domain],
          [Status.FAILED_PRECONDITION, 'spiffe://b.org'],
          'the domain is told as it was written',
        );
        assert.match(status.message, /federated with 1 registration entries/);
      }
      assert.deepEqual(codes(await remove('DISSOCIATE')), [0]);
      const unlinked = await server.admin.call('entry', 'GetEntry', { id: entry.id });
      assert.deepEqual([unlinked.federates_with, unlinked.revision_number], [['c.org'], '1']);
      assert.deepEqual(
        codes(await batch('BatchDeleteFederatedBundle', { trust_domains: ['c.org'], mode: 'DELETE' })),
        [0],
      );
      assert.equal((await server.admin.refusal('entry', 'GetEntry', { id: entry.id })).status, Status.NOT_FOUND);
      assert.deepEqual(codes(await remove()), [Status.NOT_FOUND]);
      assert.equal(
        (await server.admin.refusal('bundle', 'BatchDeleteFederatedBundle', { trust_domains: ['y.org'], mode: 9 }))
          .status,
        Status.INVALID_ARGUMENT,
      );
    },
  );
});
