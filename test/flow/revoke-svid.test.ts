/** A live SVID taken back: the list reaches the workload's open stream, verifiers refuse, and the workload gets another. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCertificate, splitCertificates } from '../../src/crypto/certificate.ts';
import { parseCrl } from '../../src/crypto/crl.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { revokedBy } from '../../src/spiffe/revocation.ts';
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import { header, type Pair, startPair } from '../support/pair.ts';

const service = 'mutual.server.v1.Revocation';
const revoke = (pair: Pair, request: object) => pair.admin.call(service, 'Revoke', request);
const denied = { code: 'svid/invalid' };

function watch(pair: Pair) {
  const stream = pair.workload.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata: header });
  return {
    async next() {
      // biome-ignore lint/suspicious/noExplicitAny: a message.
      const { value } = (await stream.next()) as any;
      const chain = splitCertificates(value.svids[0].x509_svid);
      const roots = splitCertificates(value.svids[0].bundle);
      const crls = value.crl.map(parseCrl);
      const bundle = {
        trustDomain: parseTrustDomain('example.org'),
        x509Authorities: roots.map((certificate) => ({ certificate, tainted: false })),
        jwtAuthorities: [],
        witAuthorities: [],
        refreshHint: 0,
        sequence: 1n,
      };
      const verify = (other: readonly Buffer[]) =>
        verifyX509Svid(
          other,
          bundle,
          pair.clock.now(),
          revokedBy(() => crls),
        );
      return { chain, serial: parseCertificate(chain[0]!).serial, crls, verify };
    },
    close: () => stream.return?.(),
  };
}

test('a revoked SVID stands in the list of the open stream, our verifier refuses it, and another one follows', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = watch(pair);
  const first = await stream.next();
  assert.equal(first.crls.length, 1);
  assert.equal(first.verify(first.chain).id, 'spiffe://example.org/web');

  const { revoked, position, missing_authority_ids } = await revoke(pair, { serial: `0x${first.serial.toString(16)}` });
  assert.deepEqual(missing_authority_ids, []);
  assert.deepEqual(
    revoked.map(({ kind, value, already }: { kind: string; value: string; already: boolean }) => [
      kind,
      value,
      already,
    ]),
    [['serial', first.serial.toString(), false]],
  );
  let second = await stream.next();
  assert.ok(second.crls[0].number > first.crls[0].number);
  assert.throws(() => second.verify(first.chain), { ...denied, message: /was revoked at/ });
  while (second.serial === first.serial) second = await stream.next();
  assert.equal(second.verify(second.chain).id, 'spiffe://example.org/web');

  const coverage: unknown[] = [];
  const channel = (await import('../../src/rpc/connect.ts')).connectUnix(pair.server.adminSocket);
  const seen = (async () => {
    for await (const one of channel.stream(service, 'Coverage', { position })) coverage.push(one);
  })();
  await pair.pass(seen, 20);
  channel.close();
  const alone = { elsewhere: 0, polling: 0, servers: 1, answered: 1, behind: [] };
  assert.deepEqual(coverage.at(-1), { watching: 1, holding: 1, ...alone });

  const again = await revoke(pair, { serial: first.serial.toString() });
  assert.equal(again.revoked[0].already, true, 'asked twice, revoked once');
  await stream.close();
});

test('everything of an entry is revoked, its tokens too, and the agent validates none of them', async (t) => {
  const pair = await startPair(t);
  const entry = await pair.admin.createEntry('/web');
  const stream = watch(pair);
  const first = await stream.next();
  const token = async () => {
    const response = await pair.workload.unary(
      'SpiffeWorkloadAPI',
      'FetchJWTSVID',
      { audience: ['a'] },
      { metadata: header },
    );
    // biome-ignore lint/suspicious/noExplicitAny: a message.
    return (response as any).svids[0].svid as string;
  };
  const validate = (svid: string) =>
    pair.workload.unary('SpiffeWorkloadAPI', 'ValidateJWTSVID', { audience: 'a', svid }, { metadata: header });
  const before = await token();
  await validate(before);
  await revoke(pair, { entry_id: entry });
  const second = await stream.next();
  assert.throws(() => second.verify(first.chain), denied);
  await assert.rejects(validate(before), /was revoked/);
  await pair.clock.advance(1_000);
  const after = await token();
  assert.notEqual(after, before);
  await validate(after);
  await stream.close();
});

test('an agent that starts without its server refuses what it refused before', async (t) => {
  const pair = await startPair(t);
  const entry = await pair.admin.createEntry('/web');
  const stream = watch(pair);
  const first = await stream.next();
  await revoke(pair, { entry_id: entry });
  let second = await stream.next();
  while (second.serial === first.serial) second = await stream.next();
  await stream.close();
  await pair.stopAgent();
  await pair.stopServer();
  await pair.startAgent();
  const kept = await watch(pair).next();
  assert.throws(() => kept.verify(first.chain), denied);
});

test('a revoked agent is cut off, and its certificate refused at the handshake', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const closed = assert.rejects(pair.agent.closed, /refuses this agent/);
  const { revoked } = await revoke(pair, { agent_id: pair.agent.id });
  assert.ok(
    revoked.some(
      ({ kind, spiffe_id }: { kind: string; spiffe_id: string }) => kind === 'serial' && spiffe_id === pair.agent.id,
    ),
  );
  // It came by a token, which is used up: it cannot come back.
  await pair.pass(closed, 100);
});
