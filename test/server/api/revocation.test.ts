/** The revocation service over real connections: what each name for a thing revokes, and what ends with it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSerial } from '../../../server/api/revocation.ts';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { parseCertificate } from '../../../src/crypto/certificate.ts';
import { parseCrl } from '../../../src/crypto/crl.ts';
import { makeCsr } from '../../../src/crypto/csr.ts';
import { settle } from '../../support/clock.ts';
import { type AgentPeer, id, type TestServer, testServer } from '../../support/server.ts';

/** Has an agent get an SVID for an entry; gives its serial. */
async function issue(agent: AgentPeer, entryId: string): Promise<string> {
  const csr = makeCsr(generateKey('ec-p256').privateKey, { uri: 'spiffe://example.org/any' });
  const { results } = await agent.call('svid', 'BatchNewX509SVID', { params: [{ entry_id: entryId, csr }] });
  return parseCertificate(results[0].svid.cert_chain[0]).serial.toString();
}
async function serials(server: TestServer): Promise<string[]> {
  const { lists } = await server.admin.call('revocation', 'List');
  return lists.flatMap(({ crl }: { crl: Buffer }) => [...parseCrl(crl).revoked.keys()].map(String)).sort();
}

test('by entry, by ID and by agent: what was issued for it stands in the list, and nothing else', async (t) => {
  const server = await testServer(t);
  const [one, two] = [await server.attest(), await server.attest()];
  const [web, db, other] = [
    await server.entry('/web', one.id),
    await server.entry('/db', one.id),
    await server.entry('/web', two.id),
  ];
  const [first, second, third] = [await issue(one, web.id), await issue(one, db.id), await issue(two, other.id)];
  await server.admin.call('revocation', 'Revoke', { entry_id: web.id });
  assert.deepEqual(await serials(server), [first]);
  await server.admin.call('revocation', 'Revoke', { spiffe_id: id('/web') });
  assert.deepEqual(await serials(server), [first, third].sort());
  await server.clock.advance(1);
  const later = await issue(one, web.id);
  assert.deepEqual(await serials(server), [first, third].sort(), 'what is issued afterwards is good');
  await server.admin.call('revocation', 'Revoke', { agent_id: one.id });
  assert.deepEqual(await serials(server), [first, second, third, later, one.svid.leaf.serial.toString()].sort());
});

test('a revoked administrator and a revoked agent are refused on connections that are open, and on new ones', async (t) => {
  const server = await testServer(t, { flags: { 'admin-ids': 'spiffe://example.org/admin' } });
  const svid = await server.mint('/admin');
  const admin = server.as(svid);
  await admin.call('agent', 'CountAgents');
  await server.admin.call('revocation', 'Revoke', { serial: svid.leaf.serial.toString() });
  assert.equal((await admin.refusal('agent', 'CountAgents')).code, 'caller/denied');
  assert.notEqual((await server.as(svid).refusal('agent', 'CountAgents')).code, 'caller/denied', 'no handshake');
});

test('CVE-2021-29653 a list keeps its number rising over a restart, and loses an entry only after its end', async (t) => {
  const server = await testServer(t);
  const svid = await server.mint('/web', { ttl: 600 });
  const number = async () => {
    const { lists } = await server.admin.call('revocation', 'List');
    return parseCrl(lists[0].crl).number;
  };
  assert.equal(await number(), 1n);
  await server.admin.call('revocation', 'Revoke', { serial: svid.leaf.serial.toString() });
  assert.equal(await number(), 2n);
  await server.restart();
  assert.equal(await number(), 2n, 'nothing changed, so nothing is signed');
  await server.clock.advance(300_000);
  await server.clock.advance(299_000);
  assert.equal((await serials(server)).length, 1, 'it has not expired');
  for (let minutes = 0; minutes < 30; minutes++) await server.clock.advance(60_000);
  await server.admin.call('revocation', 'Revoke', { jti: 'x' });
  assert.deepEqual(await serials(server), []);
  assert.equal(await number(), 3n);
});

test('the ban of an agent and the deletion of an entry revoke, where the operator wants that', async (t) => {
  for (const withdrawn of [true, false]) {
    const server = await testServer(t, { flags: withdrawn ? { 'revocation-withdrawn': true } : {} });
    const agent = await server.attest();
    const [web, db] = [await server.entry('/web', agent.id), await server.entry('/db', agent.id)];
    const [first, second] = [await issue(agent, web.id), await issue(agent, db.id)];
    await server.admin.call('entry', 'BatchDeleteEntry', { ids: [web.id] });
    await server.admin.call('revocation', 'List');
    await server.admin.call('agent', 'BanAgent', { id: { trust_domain: 'example.org', path: agent.id.slice(20) } });
    await server.admin.call('revocation', 'Revoke', { jti: 'x' });
    const expected = withdrawn ? [first, second, agent.svid.leaf.serial.toString()].sort() : [];
    assert.deepEqual(await serials(server), expected);
  }
});

test('a prepared authority has its list before it is published', async (t) => {
  const server = await testServer(t);
  await server.admin.call('localAuthority', 'PrepareX509Authority');
  const { x509Authorities } = await server.bundle();
  const { lists } = await server.admin.call('revocation', 'List');
  assert.deepEqual([x509Authorities.length, lists.length], [2, 2]);
  const log = await server.store.log.read(0, 1000);
  const made = log.findLastIndex(({ kind }) => kind === 'crl');
  assert.ok(made < log.findLastIndex(({ kind }) => kind === 'bundle'));
});

test('without records an entry revokes no certificate, and the answer says so', async (t) => {
  const server = await testServer(t, { flags: { 'revocation-record': false } });
  const agent = await server.attest();
  const web = await server.entry('/web', agent.id);
  const serial = await issue(agent, web.id);
  assert.equal((await server.admin.call('revocation', 'Revoke', { entry_id: web.id })).records, false);
  assert.deepEqual(await serials(server), []);
  assert.equal((await server.admin.refusal('revocation', 'Revoke', { serial })).code, 'thing/missing');
  await server.admin.call('revocation', 'Revoke', { serial, unrecorded: true });
  await server.admin.call('revocation', 'Revoke', { agent_id: agent.id });
  assert.deepEqual(await serials(server), [serial, agent.svid.leaf.serial.toString()].sort());
});

test('a serial is read in decimal and in every common hexadecimal form', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 1n, max: (1n << 160n) - 1n }), (serial) => {
      const hex = serial.toString(16);
      const colons = (hex.length % 2 ? `0${hex}` : hex).match(/../g)!.join(':');
      assert.equal(readSerial(serial.toString()), serial.toString());
      assert.equal(readSerial(`0x${hex.toUpperCase()}`), serial.toString());
      if (colons.includes(':')) assert.equal(readSerial(colons), serial.toString());
    }),
  );
});

test('what another server issued and has not recorded yet is revoked too, in a list of its own authority', async (t) => {
  const one = await testServer(t);
  // Its clock does not move, so that nothing is recorded by itself.
  const two = await testServer(t, { store: one.store });
  const svid = await two.mint('/web');
  await one.admin.call('revocation', 'Revoke', { spiffe_id: id('/web') });
  for (let found: string[] = []; !found.includes(svid.leaf.serial.toString()); ) {
    await settle(20);
    found = await serials(one);
  }
  const { lists } = await one.admin.call('revocation', 'List');
  assert.equal(lists.length, 2);
  const holding = lists.filter(({ crl }: { crl: Buffer }) => parseCrl(crl).revoked.has(svid.leaf.serial));
  assert.deepEqual(
    holding.map(({ authority_id }: { authority_id: string }) => authority_id),
    [svid.leaf.authorityKeyId?.toString('hex')],
  );
});
