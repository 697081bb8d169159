/** Federation relationships over the API. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status } from '../../../src/errors.ts';
import { testAuthority } from '../../support/ca.ts';
import { testServer } from '../../support/server.ts';

// biome-ignore lint/suspicious/noExplicitAny: a message.
type Message = any;
const ca = testAuthority({ trustDomain: 'b.org', now: Date.UTC(2030, 0, 1) });
const b = { trust_domain: 'b.org', bundle_endpoint_url: 'https://b.org/bundle', https_web: {} };
const bundle = { trust_domain: 'b.org', x509_authorities: [{ asn1: ca.der }], sequence_number: '3' };
const spiffe = { https_spiffe: { endpoint_spiffe_id: 'spiffe://b.org/endpoint' } };
const codes = (results: Message[]) => results.map(({ status }) => status.code);

test('federation relationships', async (t) => {
  const server = await testServer(t);
  const batch = async (method: string, request: object): Promise<Message[]> =>
    (await server.admin.call('trustDomain', `Batch${method}FederationRelationship`, request)).results;
  const create = (...federation_relationships: object[]) => batch('Create', { federation_relationships });
  const get = (trust_domain = 'b.org', more: object = {}): Promise<Message> =>
    server.admin.call('trustDomain', 'GetFederationRelationship', { trust_domain, ...more });

  await t.test('one is created with its bundle, and not twice: ALREADY_EXISTS, as the contract promises', async () => {
    const results = await create({ ...b, trust_domain_bundle: bundle }, b);
    assert.deepEqual(codes(results), [0, Status.ALREADY_EXISTS]);
    const { trust_domain, bundle_endpoint_url, bundle_endpoint_profile, trust_domain_bundle } = await get();
    assert.deepEqual(
      [trust_domain, bundle_endpoint_url, bundle_endpoint_profile, trust_domain_bundle.sequence_number],
      ['b.org', 'https://b.org/bundle', 'https_web', '3'],
    );
    assert.deepEqual(results[0].federation_relationship, await get());
    assert.equal(
      (await server.admin.call('bundle', 'GetFederatedBundle', { trust_domain: 'b.org' })).sequence_number,
      '3',
    );
  });

  for (const [what, wrong, says] of [
    ['the own trust domain', { trust_domain: 'example.org' }, /cannot federate with itself/],
    ['a malformed domain', { trust_domain: 'B.org' }, /upper-case/],
    ['no URL', { bundle_endpoint_url: '' }, /not a URL/],
    ['FED-12 http', { bundle_endpoint_url: 'http://b.org' }, /must be https/],
    ['FED-12 user information', { bundle_endpoint_url: 'https://user@b.org' }, /user information/],
    ['FED-12 a password', { bundle_endpoint_url: 'https://:p@b.org' }, /user information/],
    ['a file', { bundle_endpoint_url: 'file:///etc/passwd' }, /must be https/],
    ['no profile', { https_web: null }, /profile is missing/],
    [
      'an endpoint ID that is none',
      { https_web: null, https_spiffe: { endpoint_spiffe_id: 'b.org' } },
      /SPIFFE ID "b.org"/,
    ],
    [
      'the bundle of another domain',
      { trust_domain_bundle: { ...bundle, trust_domain: 'c.org' } },
      /bundle is of trust domain "c.org"/,
    ],
    [
      'a bundle that is none',
      { trust_domain_bundle: { ...bundle, x509_authorities: [{ asn1: Buffer.from('x') }] } },
      /not one DER certificate/,
    ],
  ] as [string, object, RegExp][]) {
    await t.test(`FED-10 refuses ${what}, and creates nothing`, async () => {
      const [{ status }] = await create({ ...b, trust_domain: 'new.org', ...wrong });
      assert.equal(status.code, Status.INVALID_ARGUMENT);
      assert.match(status.message, says);
      assert.equal(
        (await server.admin.refusal('trustDomain', 'GetFederationRelationship', { trust_domain: 'new.org' })).status,
        Status.NOT_FOUND,
      );
    });
  }

  await t.test('an update changes what the mask names; an absent bundle leaves the stored one', async () => {
    const update = async (wire: object, input_mask?: object) =>
      (await batch('Update', { federation_relationships: [{ ...b, ...wire }], ...(input_mask && { input_mask }) }))[0];
    const changed = { ...b, https_web: null, ...spiffe, bundle_endpoint_url: 'https://other' };
    const profile = (one: Message) => one.federation_relationship.bundle_endpoint_profile;
    const url = (one: Message) => one.federation_relationship.bundle_endpoint_url;
    const onlyUrl = await update(changed, { bundle_endpoint_url: true });
    assert.deepEqual(
      [url(onlyUrl), profile(onlyUrl)],
      ['https://other', 'https_web'],
      'a profile that the mask leaves out is kept, whatever the request says',
    );
    const onlyProfile = await update(
      { ...changed, bundle_endpoint_url: 'https://ignored' },
      { bundle_endpoint_profile: true },
    );
    assert.deepEqual([url(onlyProfile), profile(onlyProfile)], ['https://other', 'https_spiffe']);
    const kept = await update({ bundle_endpoint_url: 'https://third' }, { bundle_endpoint_url: true });
    assert.deepEqual([profile(kept), kept.federation_relationship.https_spiffe], ['https_spiffe', spiffe.https_spiffe]);
    const all = await update({});
    assert.deepEqual(
      [url(all), profile(all), all.federation_relationship.trust_domain_bundle.sequence_number],
      ['https://b.org/bundle', 'https_web', '3'],
    );
    const newBundle = await update(
      { trust_domain_bundle: { ...bundle, sequence_number: '4' } },
      { trust_domain_bundle: true },
    );
    assert.equal(newBundle.federation_relationship.trust_domain_bundle.sequence_number, '4');
    const ignored = await update({ trust_domain_bundle: { ...bundle, sequence_number: '5' } }, {});
    assert.equal(ignored.federation_relationship.trust_domain_bundle.sequence_number, '4');
    assert.equal((await update({ trust_domain: 'nobody.org' })).status.code, Status.NOT_FOUND);
  });

  await t.test('masks, pages, and pages that go on though others are gone', async () => {
    assert.deepEqual(
      codes(await create(...['d.org', 'c.org', 'a.org'].map((trust_domain) => ({ ...b, trust_domain })))),
      [0, 0, 0],
    );
    const list = (more: object = {}): Promise<Message> =>
      server.admin.call('trustDomain', 'ListFederationRelationships', more);
    const names = ({ federation_relationships }: Message) =>
      federation_relationships.map((one: Message) => one.trust_domain);
    assert.deepEqual(names(await list()), ['a.org', 'b.org', 'c.org', 'd.org']);
    const first = await list({ page_size: 2 });
    await batch('Delete', { trust_domains: ['a.org'] });
    const second = await list({ page_size: 2, page_token: first.next_page_token });
    assert.deepEqual(
      [names(first), names(second), second.next_page_token],
      [['a.org', 'b.org'], ['c.org', 'd.org'], ''],
    );
    const shown = await get('b.org', { output_mask: { bundle_endpoint_profile: true } });
    assert.deepEqual(
      [shown.trust_domain, shown.bundle_endpoint_url, shown.bundle_endpoint_profile, shown.trust_domain_bundle],
      ['b.org', '', 'https_web', null],
    );
  });

  await t.test('deleting one leaves its bundle; one that is not there is NOT_FOUND', async () => {
    assert.deepEqual(codes(await batch('Delete', { trust_domains: ['spiffe://b.org', 'b.org', 'B'] })), [
      0,
      Status.NOT_FOUND,
      Status.INVALID_ARGUMENT,
    ]);
    assert.equal(
      (await server.admin.call('bundle', 'GetFederatedBundle', { trust_domain: 'b.org' })).trust_domain,
      'b.org',
    );
    assert.equal(
      (await server.admin.refusal('trustDomain', 'RefreshBundle', { trust_domain: 'b.org' })).status,
      Status.NOT_FOUND,
    );
  });
});
