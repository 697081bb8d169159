/** The canary: nothing secret is in the log of a server at its most talkative, whatever succeeds or fails in it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateKey } from '../../src/crypto/algorithms.ts';
import { makeCsr } from '../../src/crypto/csr.ts';
import type { KeyStore } from '../../src/keys/key-store.ts';
import { memoryKeys } from '../../src/keys/memory.ts';
import { attestWith, testServer, wireId } from '../support/server.ts';

test('S#1953 private keys, join tokens that are still good, and JWT-SVIDs are never logged', async (t) => {
  const secrets = new Map<string, string>();
  const inner = memoryKeys();
  const keys: KeyStore = {
    ...inner,
    async generate(id, type) {
      const key = await inner.generate(id, type);
      const der = key.exportPkcs8?.() as Buffer;
      // The part of the key that no other key has, in each way it might be printed.
      for (const form of ['base64', 'hex'] as const)
        secrets.set(`key ${id} in ${form}`, der.subarray(-72, -36).toString(form));
      return key;
    },
  };
  const server = await testServer(t, { keys });
  const tokens = ['canary-token-unused', 'canary-token-expired', 'canary-token-wrong', 'canary-token-raced'];
  for (const token of tokens) secrets.set(`token ${token}`, token);
  const make = (token: string, more: object = {}) =>
    server.admin.call('agent', 'CreateJoinToken', { ttl: 60, token, ...more });
  await make('canary-token-unused', { agent_id: wireId('/alias') });
  await server.admin.refusal('agent', 'CreateJoinToken', { ttl: 60, token: 'canary-token-unused' });
  await make('canary-token-expired', { ttl: 1 });
  await make('canary-token-raced');
  await server.clock.advance(2_000);
  const try_ = (token: string) =>
    attestWith(server.nobody.channel, 'join_token', Buffer.from(token)).catch((error: unknown) => error);
  for (const token of ['canary-token-wrong', 'canary-token-expired']) await try_(token);
  // A token that is good, with a request that is not.
  const talk = server.nobody.channel.bidi('spire.api.server.agent.v1.Agent', 'AttestAgent');
  void talk.send({
    params: {
      data: { type: 'join_token', payload: Buffer.from('canary-token-raced') },
      params: { csr: Buffer.from('x') },
    },
  });
  await assert.rejects(talk.responses.next());

  const agent = await server.attest();
  const entry = await server.entry('/web', agent.id);
  const { privateKey } = generateKey('ec-p256');
  await agent.call('svid', 'BatchNewX509SVID', { params: [{ entry_id: entry.id, csr: makeCsr(privateKey) }] });
  const { svid } = await agent.call('svid', 'NewJWTSVID', { entry_id: entry.id, audience: ['a'] });
  secrets.set('JWT-SVID', svid.token.split('.')[2]);
  const minted = await server.admin.call('svid', 'MintJWTSVID', { id: wireId('/web'), audience: ['a'] });
  secrets.set('minted JWT-SVID', minted.svid.token.split('.')[2]);
  for (const kind of ['X509', 'JWT']) {
    const { prepared_authority } = await server.admin.call('localAuthority', `Prepare${kind}Authority`);
    await server.admin.call('localAuthority', `Activate${kind}Authority`, {
      authority_id: prepared_authority.authority_id,
    });
  }
  await server.clock.advance(6 * 60_000);
  await server.clock.advance(2 * 3_600_000);
  await agent.refusal('svid', 'NewJWTSVID', { entry_id: entry.id, audience: ['a'] });

  assert.ok(secrets.size >= 12 && server.lines.length > 10, 'there was something to find, and where');
  for (const [what, secret] of secrets) {
    assert.ok(secret.length >= 12, what);
    const line = server.lines.find((one) => one.includes(secret));
    assert.equal(line, undefined, `${what} is in the log`);
  }
  for (const line of server.lines) assert.doesNotMatch(line, /PRIVATE KEY|eyJ[A-Za-z0-9_-]{20}/);
});
