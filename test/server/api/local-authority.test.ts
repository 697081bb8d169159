/** Rotation on purpose, over the API: the whole way, out of order, and what is not offered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status } from '../../../src/errors.ts';
import { testServer } from '../../support/server.ts';

const enabled = { flags: { witSvidsEnabled: true } };
const field = { X509: 'x509Authorities', JWT: 'jwtAuthorities', WIT: 'witAuthorities' } as const;

for (const kind of ['X509', 'JWT', 'WIT'] as const) {
  test(`${kind}: prepare, activate, taint, revoke, each seen in the state and in the bundle`, async (t) => {
    const server = await testServer(t, enabled);
    // biome-ignore lint/suspicious/noExplicitAny: a message.
    const call = (verb: string, authority_id?: string): Promise<any> =>
      server.admin.call('localAuthority', verb === 'Get' ? `Get${kind}AuthorityState` : `${verb}${kind}Authority`, {
        ...(authority_id && { authority_id }),
      });
    const refusal = (verb: string, authority_id = '') =>
      server.admin.refusal('localAuthority', `${verb}${kind}Authority`, { authority_id });
    const inBundle = async () => {
      const bundle = await server.bundle();
      return bundle[field[kind]].map(({ tainted }) => tainted);
    };
    const { active, prepared, old } = await call('Get');
    assert.deepEqual([prepared, old, await inBundle()], [null, null, [false]]);
    assert.match(active.authority_id, kind === 'X509' ? /^[0-9a-f]{40}$/ : /^[A-Za-z0-9]{32}$/);
    assert.deepEqual(
      [active.expires_at, active.upstream_authority_subject_key_id],
      [String(server.clock.now() / 1000 + 24 * 3600), ''],
    );

    for (const verb of ['Activate', 'Taint', 'Revoke'])
      assert.equal((await refusal(verb)).status, Status.INVALID_ARGUMENT, 'no id');
    assert.equal((await refusal('Activate', active.authority_id)).status, Status.FAILED_PRECONDITION);
    assert.equal((await refusal('Taint', active.authority_id)).status, Status.FAILED_PRECONDITION);
    assert.equal((await refusal('Revoke', active.authority_id)).status, Status.FAILED_PRECONDITION);

    const next = (await call('Prepare')).prepared_authority;
    assert.deepEqual([(await call('Get')).prepared, await inBundle()], [next, [false, false]]);
    assert.equal((await refusal('Activate', 'other')).status, Status.INVALID_ARGUMENT);
    assert.deepEqual((await call('Activate', next.authority_id)).activated_authority, next);
    assert.equal((await refusal('Revoke', active.authority_id)).status, Status.FAILED_PRECONDITION, 'not tainted yet');
    assert.deepEqual((await call('Taint', active.authority_id)).tainted_authority, active);
    assert.deepEqual([...(await inBundle())].sort(), [false, true]);
    assert.equal((await refusal('Taint', active.authority_id)).status, Status.FAILED_PRECONDITION, 'already');
    assert.deepEqual((await call('Revoke', active.authority_id)).revoked_authority, active);
    const end = await call('Get');
    assert.deepEqual([end.active, end.old, await inBundle()], [next, null, [false]]);

    await server.restart();
    assert.deepEqual(
      await server.admin.call('localAuthority', `Get${kind}AuthorityState`),
      end,
      'a restart changes nothing',
    );
  });
}

test('a tainted JWT or WIT key can be revoked also when two rotations later no slot holds it; an X.509 authority only as the old one', async (t) => {
  const server = await testServer(t, enabled);
  for (const kind of ['X509', 'JWT', 'WIT'] as const) {
    const rotate = async () => {
      const { prepared_authority } = await server.admin.call('localAuthority', `Prepare${kind}Authority`);
      await server.admin.call('localAuthority', `Activate${kind}Authority`, {
        authority_id: prepared_authority.authority_id,
      });
    };
    await rotate();
    const { old } = await server.admin.call('localAuthority', `Get${kind}AuthorityState`);
    const request = { authority_id: old.authority_id };
    await server.admin.call('localAuthority', `Taint${kind}Authority`, request);
    await rotate();
    if (kind !== 'X509') {
      assert.deepEqual(
        (await server.admin.call('localAuthority', `Revoke${kind}Authority`, request)).revoked_authority,
        old,
      );
      assert.ok(!(await server.bundle())[field[kind]].some(({ keyId }) => keyId === old.authority_id));
      const { active, old: untainted } = await server.admin.call('localAuthority', `Get${kind}AuthorityState`);
      for (const { authority_id } of [active, untainted])
        assert.equal(
          (await server.admin.refusal('localAuthority', `Revoke${kind}Authority`, { authority_id })).status,
          Status.FAILED_PRECONDITION,
        );
    } else {
      assert.equal(
        (await server.admin.refusal('localAuthority', 'RevokeX509Authority', request)).status,
        Status.INVALID_ARGUMENT,
      );
    }
  }
});

test('upstream authorities are not configured', async (t) => {
  const server = await testServer(t);
  for (const method of ['TaintX509UpstreamAuthority', 'RevokeX509UpstreamAuthority'])
    assert.equal(
      (await server.admin.refusal('localAuthority', method, { subject_key_id: 'ab' })).status,
      Status.FAILED_PRECONDITION,
    );
});
