/** SVIDs over the API: an agent gets those of its entries and no other, with what the entry says and nothing of the request but the key. */
import assert from 'node:assert/strict';
import { after, type TestContext, test } from 'node:test';
import type { FromWorker } from '../../../server/issue/signing-jobs.ts';
import { type SigningForTests, startThread } from '../../../server/issue/signing-workers.ts';
import { generateKey, type KeyType } from '../../../src/crypto/algorithms.ts';
import { parseCertificate } from '../../../src/crypto/certificate.ts';
import { name } from '../../../src/crypto/certificate-writer.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import { Status } from '../../../src/errors.ts';
import { verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { lintX509Svid, verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { id, type TestServer, type TestServerWishes, td, testServer, wireId } from '../../support/server.ts';

// biome-ignore lint/suspicious/noExplicitAny: a message.
type Message = any;
const csrOf = (asked: Parameters<typeof makeCsr>[1] = {}, type: KeyType = 'ec-p256') =>
  makeCsr(generateKey(type).privateKey, asked);
const forged = () => {
  const csr = csrOf({ uri: id('/web') });
  csr[csr.length - 1]! ^= 1;
  return csr;
};
const codes = (results: Message[]) => results.map(({ status }) => status.code);
const seconds = (server: TestServer) => Math.floor(server.clock.now() / 1000);

/** The same from the first thread and from signing workers. */
for (const workers of [0, 2]) {
  const aside = workers === 0 ? '' : `, by ${workers} signing workers`;
  let answered = 0;
  const newThread: SigningForTests['newThread'] = (rules) =>
    startThread(rules).on('message', (outcomes: FromWorker) => {
      answered += outcomes.filter((outcome) => outcome !== undefined).length;
    });
  const serverOf = (t: TestContext, wishes: TestServerWishes = {}): Promise<TestServer> =>
    testServer(t, { ...wishes, flags: { workers, ...wishes.flags }, signing: { always: true, newThread } });
  after(() => assert.equal(answered > 0, workers > 0, `${answered} answers came from ${workers} workers`));

  test(`BatchNewX509SVID${aside}`, async (t) => {
    const server = await serverOf(t, { flags: { defaultX509SvidTtl: '30m' } });
    const [agent, other] = [await server.attest(), await server.attest()];
    const ask = async (...params: object[]): Promise<Message[]> =>
      (await agent.call('svid', 'BatchNewX509SVID', { params })).results;
    const web = await server.entry('/web', agent.id);

    await t.test('gives each entry its SVID, in order; what is not this agent’s is as good as not there', async () => {
      const theirs = await server.entry('/theirs', other.id);
      const results = await ask(
        { entry_id: web.id, csr: csrOf() },
        { entry_id: theirs.id, csr: csrOf() },
        { entry_id: 'none', csr: csrOf() },
        { entry_id: '', csr: csrOf() },
        { entry_id: web.id },
        { entry_id: web.id, csr: Buffer.from('x') },
        { entry_id: web.id, csr: forged() },
        { entry_id: web.id, csr: csrOf({}, 'rsa-2048') },
      );
      const { OK, NOT_FOUND, INVALID_ARGUMENT } = Status;
      assert.deepEqual(codes(results), [
        OK,
        NOT_FOUND,
        NOT_FOUND,
        INVALID_ARGUMENT,
        INVALID_ARGUMENT,
        INVALID_ARGUMENT,
        INVALID_ARGUMENT,
        OK,
      ]);
      assert.equal(results[1].status.message, 'entry not found or not authorized');
      assert.deepEqual(results[1].status, results[2].status, 'nobody learns which entries others have');
      const { leaf } = verifyX509Svid(results[0].svid.cert_chain, await server.bundle(), server.clock.now());
      assert.deepEqual(lintX509Svid(leaf), []);
      assert.deepEqual(
        [leaf.notAfter, results[0].svid.expires_at],
        [server.clock.now() + 1_800_000, String(leaf.notAfter / 1000)],
      );
    });

    await t.test(
      'cure53 SPI-01-004, Consul CVE-2022-40716: ID, names and subject come from the entry alone, whatever the CSR asks',
      async () => {
        const named = await server.entry('/named', agent.id, {
          dns_names: ['a.example.org', 'b.example.org'],
          x509_svid_ttl: 60,
          hint: 'h',
        });
        for (const asked of [
          { uri: id('/admin') },
          { uri: 'spiffe://b.org/x' },
          { uri: 'https://x' },
          { dnsNames: ['evil'] },
          { subject: name([['CN', 'evil']]) },
        ]) {
          const [{ svid }] = await ask({ entry_id: named.id, csr: csrOf(asked) });
          const leaf = parseCertificate(svid.cert_chain[0]);
          assert.deepEqual(
            [leaf.uris, leaf.dnsNames, leaf.commonName],
            [[id('/named')], ['a.example.org', 'b.example.org'], 'a.example.org'],
          );
          assert.deepEqual([svid.id, svid.hint, leaf.notAfter], [wireId('/named'), 'h', server.clock.now() + 60_000]);
        }
      },
    );

    await t.test('an entry that is gone, or was given to another, issues nothing more', async () => {
      const gone = await server.entry('/gone', agent.id);
      await server.admin.call('entry', 'BatchUpdateEntry', {
        entries: [{ ...gone, parent_id: wireId(other.id.slice(20)) }],
      });
      assert.deepEqual(codes(await ask({ entry_id: gone.id, csr: csrOf() })), [Status.NOT_FOUND]);
      await server.admin.call('entry', 'BatchDeleteEntry', { ids: [web.id] });
      assert.deepEqual(codes(await ask({ entry_id: web.id, csr: csrOf() })), [Status.NOT_FOUND]);
    });

    await t.test('no params at all are refused', async () =>
      assert.equal((await agent.refusal('svid', 'BatchNewX509SVID')).status, Status.INVALID_ARGUMENT),
    );

    await t.test('a life longer than that of the authority is cut to it', async () => {
      const long = await server.entry('/long', agent.id, { x509_svid_ttl: 2 ** 31 - 1 });
      const [{ svid }] = await ask({ entry_id: long.id, csr: csrOf() });
      assert.equal(svid.expires_at, String(seconds(server) + 24 * 3600));
    });
  });

  test(`NewJWTSVID${aside}`, async (t) => {
    const server = await serverOf(t, { flags: { jwtIssuer: 'https://issuer' } });
    const agent = await server.attest();
    const issue = (entry_id: string, audience: string[]): Promise<Message> =>
      agent.call('svid', 'NewJWTSVID', { entry_id, audience });
    const plain = await server.entry('/plain', agent.id);
    const full = await server.entry('/full', agent.id, {
      jwt_svid_ttl: 60,
      hint: 'h',
      additional_attributes: { jwt_svid_include_jti: true },
    });

    const { svid } = await issue(plain.id, ['db']);
    const bundle = await server.bundle();
    const verified = await verifyJwtSvid(svid.token, 'db', () => bundle, server.clock.now());
    const { jti, ...claims } = verified.claims;
    assert.deepEqual(
      [claims, jti],
      [
        { iss: 'https://issuer', sub: id('/plain'), aud: ['db'], exp: seconds(server) + 300, iat: seconds(server) },
        undefined,
      ],
    );
    assert.deepEqual(
      [svid.id, svid.hint, svid.expires_at, svid.issued_at],
      [wireId('/plain'), '', String(claims.exp), String(claims.iat)],
    );

    const [one, two] = [await issue(full.id, ['db', 'x']), await issue(full.id, ['db', 'x'])];
    const [first, second] = [decodeJwt(one.svid.token).claims, decodeJwt(two.svid.token).claims];
    assert.match(String(first.jti), /^[A-Za-z0-9_-]{22}$/);
    assert.notEqual(first.jti, second.jti);
    assert.deepEqual([first.exp, one.svid.hint, first.aud], [seconds(server) + 60, 'h', ['db', 'x']]);

    const other = await server.attest();
    const theirs = await server.entry('/theirs', other.id);
    for (const [request, status] of [
      [{ entry_id: '', audience: ['a'] }, Status.INVALID_ARGUMENT],
      [{ entry_id: plain.id, audience: [] }, Status.INVALID_ARGUMENT],
      [{ entry_id: plain.id, audience: [''] }, Status.INVALID_ARGUMENT],
      [{ entry_id: plain.id, audience: ['x'.repeat(1025)] }, Status.INVALID_ARGUMENT],
      [{ entry_id: theirs.id, audience: ['a'] }, Status.NOT_FOUND],
      [{ entry_id: 'none', audience: ['a'] }, Status.NOT_FOUND],
    ] as const) {
      assert.equal(
        (await agent.refusal('svid', 'NewJWTSVID', request)).status,
        status,
        JSON.stringify(request).slice(0, 80),
      );
    }
    assert.equal((await agent.refusal('svid', 'BatchNewWITSVID')).status, Status.UNIMPLEMENTED);
  });

  test(`an agent is given both kinds of SVID for entries of every flag, and these grant the agent itself nothing${aside}`, async (t) => {
    const server = await serverOf(t);
    const agent = await server.attest();
    for (const flags of [
      { admin: true },
      { downstream: true },
      { store_svid: true },
      { admin: true, downstream: true },
    ]) {
      const entry = await server.entry(`/${Object.keys(flags).join('-')}`, agent.id, flags);
      const { results } = await agent.call('svid', 'BatchNewX509SVID', {
        params: [{ entry_id: entry.id, csr: csrOf() }],
      });
      assert.deepEqual(codes(results), [0]);
      await agent.call('svid', 'NewJWTSVID', { entry_id: entry.id, audience: ['a'] });
    }
    for (const [service, method] of [
      ['entry', 'ListEntries'],
      ['svid', 'MintX509SVID'],
      ['svid', 'NewDownstreamX509CA'],
    ] as const)
      assert.equal((await agent.refusal(service, method)).status, Status.PERMISSION_DENIED);
  });

  test(`MintX509SVID${aside}`, async (t) => {
    const server = await serverOf(t);
    const mint = async (csr: Buffer, ttl = 0): Promise<Message> =>
      (await server.admin.call('svid', 'MintX509SVID', { csr, ttl })).svid;

    await t.test('honours subject, names and lifetime', async () => {
      const svid = await mint(
        csrOf({
          uri: id('/web'),
          dnsNames: ['a.org', 'b.org', 'a.org'],
          subject: name([
            ['O', 'Acme'],
            ['CN', 'x'],
          ]),
        }),
        90,
      );
      const { leaf } = verifyX509Svid(svid.cert_chain, await server.bundle(), server.clock.now());
      assert.deepEqual(lintX509Svid(leaf), []);
      assert.deepEqual(
        [leaf.uris, leaf.dnsNames, leaf.commonName, leaf.notAfter],
        [[id('/web')], ['a.org', 'b.org'], 'a.org', server.clock.now() + 90_000],
      );
      assert.equal((await mint(csrOf({ uri: id('/web') }))).expires_at, String(seconds(server) + 3600));
    });

    for (const [what, csr, says] of [
      ['no CSR', Buffer.alloc(0), /missing CSR/],
      ['a CSR signed by another key', forged(), /not signed by the key/],
      ['no URI', csrOf(), /exactly one URI SAN, it has 0/],
      ['an ID of another domain', csrOf({ uri: 'spiffe://b.org/web' }), /belongs to trust domain "b.org"/],
      ['the trust domain itself', csrOf({ uri: 'spiffe://example.org' }), /path is empty/],
      ['the server’s own ID', csrOf({ uri: id('/spire/server') }), /reserved/],
      ['an agent’s ID', csrOf({ uri: id('/spire/agent/x') }), /reserved/],
      ['another scheme', csrOf({ uri: 'https://example.org/web' }), /does not begin with/],
      ['a path with dots', csrOf({ uri: 'spiffe://example.org/a/../spire/server' }), /"\.\." segment/],
      ['an encoded path', csrOf({ uri: 'spiffe://example.org/%73pire/server' }), /character outside/],
      ['a malformed DNS name', csrOf({ uri: id('/web'), dnsNames: ['a b'] }), /DNS name "a b"/],
      [
        'a wildcard over another name',
        csrOf({ uri: id('/web'), dnsNames: ['*.a.org', 'x.a.org'] }),
        /"\*\.a\.org" overlaps with "x\.a\.org"/,
      ],
    ] as [string, Buffer, RegExp][]) {
      await t.test(`refuses ${what}`, async () => {
        const fault = await server.admin.refusal('svid', 'MintX509SVID', { csr });
        assert.equal(fault.status, Status.INVALID_ARGUMENT);
        assert.match(fault.message, says);
      });
    }

    await t.test('refuses a negative lifetime; a wildcard covers one label only', async () => {
      assert.equal(
        (await server.admin.refusal('svid', 'MintX509SVID', { csr: csrOf({ uri: id('/web') }), ttl: -1 })).status,
        Status.INVALID_ARGUMENT,
      );
      await mint(csrOf({ uri: id('/web'), dnsNames: ['*.a.org', 'x.y.a.org', 'a.org'] }));
    });
  });

  test(`MintJWTSVID, and JWT-SVIDs switched off${aside}`, async (t) => {
    const server = await serverOf(t);
    const agent = await server.attest();
    const entry = await server.entry('/web', agent.id);
    const { svid } = await server.admin.call('svid', 'MintJWTSVID', { id: wireId('/web'), audience: ['db'], ttl: 20 });
    assert.deepEqual(decodeJwt(svid.token).claims, {
      sub: id('/web'),
      aud: ['db'],
      exp: seconds(server) + 20,
      iat: seconds(server),
    });
    for (const request of [
      { audience: ['a'] },
      { id: wireId('/web') },
      { id: wireId('/spire/agent/x'), audience: ['a'] },
      { id: { trust_domain: 'b.org', path: '/a' }, audience: ['a'] },
      { id: wireId('/web'), audience: ['a'], ttl: -1 },
    ]) {
      assert.equal((await server.admin.refusal('svid', 'MintJWTSVID', request)).status, Status.INVALID_ARGUMENT);
    }
    assert.equal((await server.admin.refusal('svid', 'MintWITSVID')).status, Status.UNIMPLEMENTED);

    await server.restart({ disableJwtSvids: true });
    const again = server.as(agent.svid);
    for (const [peer, service, method, request] of [
      [server.admin, 'svid', 'MintJWTSVID', { id: wireId('/web'), audience: ['a'] }],
      [again, 'svid', 'NewJWTSVID', { entry_id: entry.id, audience: ['a'] }],
      [server.admin, 'localAuthority', 'GetJWTAuthorityState', {}],
      [server.admin, 'localAuthority', 'PrepareJWTAuthority', {}],
      [server.admin, 'localAuthority', 'TaintJWTAuthority', { authority_id: 'x' }],
    ] as const) {
      assert.equal((await peer.refusal(service, method, request)).status, Status.UNIMPLEMENTED, method);
    }
    assert.equal(
      (await again.call('svid', 'BatchNewX509SVID', { params: [{ entry_id: entry.id, csr: csrOf() }] })).results[0]
        .status.code,
      0,
    );
  });

  test(`NewDownstreamX509CA${aside}`, async (t) => {
    const server = await serverOf(t);
    await server.entry('/nested', id('/spire/agent/x'), { downstream: true });
    const nested = server.as(await server.mint('/nested'));
    const csr = csrOf({ uri: `spiffe://${td}` });
    const { ca_cert_chain, x509_authorities } = await nested.call('svid', 'NewDownstreamX509CA', {
      csr,
      preferred_ttl: 600,
    });
    const [ca] = ca_cert_chain.map(parseCertificate);
    assert.deepEqual([ca.isCa, ca.uris, ca.notAfter], [true, ['spiffe://example.org'], server.clock.now() + 600_000]);
    assert.deepEqual(
      x509_authorities,
      (await server.bundle()).x509Authorities.map(({ certificate }) => certificate),
    );
    const whole = await nested.call('svid', 'NewDownstreamX509CA', { csr });
    assert.equal(parseCertificate(whole.ca_cert_chain[0]).notAfter, server.clock.now() + 24 * 3_600_000);
    for (const request of [
      {},
      { csr: forged() },
      { csr: csrOf() },
      { csr: csrOf({ uri: id('/web') }) },
      { csr: csrOf({ uri: 'spiffe://b.org' }) },
      { csr, preferred_ttl: -1 },
    ])
      assert.equal((await nested.refusal('svid', 'NewDownstreamX509CA', request)).status, Status.INVALID_ARGUMENT);
  });
}
