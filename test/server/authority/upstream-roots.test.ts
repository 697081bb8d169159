/** Roots above a server, tainted and revoked on purpose: over the API, with real files of upstream `disk` and a driven clock. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import { authorityId, parseCertificate } from '../../../src/crypto/certificate.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { Status } from '../../../src/errors.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';
import { type TestServer, testServer } from '../../support/server.ts';
import { type UpstreamFiles, upstreamFiles } from '../../support/upstream-files.ts';

function stepsOf(server: TestServer) {
  const call = (method: string, request: object = {}) => server.admin.call('localAuthority', method, request);
  const state = () => call('GetX509AuthorityState');
  return {
    state,
    /** Prepares and activates; gives the root that the new authority leads to. */
    async move(): Promise<string> {
      const { prepared_authority: next } = await call('PrepareX509Authority');
      await call('ActivateX509Authority', { authority_id: next.authority_id });
      return next.upstream_authority_subject_key_id;
    },
    taint: (subject_key_id: string) => call('TaintX509UpstreamAuthority', { subject_key_id }),
    revoke: (subject_key_id: string) => call('RevokeX509UpstreamAuthority', { subject_key_id }),
    refusal: (verb: 'Taint' | 'Revoke', subject_key_id: string) =>
      server.admin.refusal('localAuthority', `${verb}X509UpstreamAuthority`, { subject_key_id }),
    /** Root ids in the bundle, tainted ones with a mark. */
    async roots(): Promise<string[]> {
      const { x509Authorities } = await server.bundle();
      return x509Authorities.map(
        ({ certificate, tainted }) => `${authorityId(parseCertificate(certificate))}${tainted ? ' tainted' : ''}`,
      );
    },
  };
}

async function below(t: TestContext, options: { intermediate?: boolean } = {}) {
  const clock = drivenClock();
  const files = await upstreamFiles(clock.now(), options);
  t.after(files.close);
  const server = await testServer(t, { clock, flags: files.flags });
  return { clock, files, server, ...stepsOf(server) };
}

/** Lets the servers look after their authorities until it is as wanted; calls in between let each look end. */
async function looked(server: TestServer, wanted: () => Promise<boolean>): Promise<void> {
  for (let look = 0; look < 200; look++) {
    if (await wanted()) return;
    await server.clock.advance(5_000);
  }
  assert.fail('not within 200 looks');
}

for (const intermediate of [false, true])
  test(`taint and revoke, ${intermediate ? 'an intermediate' : 'a root'} signs: SVIDs move, the server's own too, the old root goes and does not come back`, async (t) => {
    const { server, files, state, move, taint, revoke, roots, refusal } = await below(t, { intermediate });
    const old = files.root();
    assert.deepEqual(await roots(), [old]);
    const next = await files.rotate();
    assert.equal(await move(), next);
    const svid = await server.mint('/before');
    assert.deepEqual(await roots(), [old, next]);

    assert.equal((await refusal('Revoke', old)).status, Status.FAILED_PRECONDITION, 'not tainted yet');
    const answer = await taint(old.toUpperCase());
    assert.deepEqual(answer, { upstream_authority_subject_key_id: old });
    assert.deepEqual(await roots(), [`${old} tainted`, next]);
    assert.match((await refusal('Taint', old)).message, /already tainted/);
    const bundle = await server.bundle();
    const onlyNew = { ...bundle, x509Authorities: bundle.x509Authorities.filter(({ tainted }) => !tainted) };
    const agent = await server.attest();
    verifyX509Svid(agent.svid.chain, onlyNew, server.clock.now());
    verifyX509Svid(svid.chain, onlyNew, server.clock.now());

    assert.deepEqual(await revoke(old), { upstream_authority_subject_key_id: old });
    assert.deepEqual(await roots(), [next]);
    assert.equal((await state()).old, null);
    assert.match((await refusal('Revoke', old)).message, /no root with subject key ID/);
    assert.ok((await server.entry('/after', agent.id)).id);
  });

test('the root of what signs, or is to sign next, is refused, and what is no root of an upstream', async (t) => {
  const { server, files, state, move, refusal } = await below(t);
  const [first, nothing] = [files.root(), '00'.repeat(20)];
  for (const verb of ['Taint', 'Revoke'] as const) {
    const active = await refusal(verb, first);
    assert.equal(active.status, Status.FAILED_PRECONDITION);
    assert.match(`${active.message} ${active.hint}`, /signed the active X.509 authority.*below another root/);
    const unknown = await refusal(verb, nothing);
    assert.equal(unknown.status, Status.INVALID_ARGUMENT);
    assert.match(`${unknown.message} ${unknown.hint}`, new RegExp(`"${nothing}".*${first}`));
    assert.match((await refusal(verb, '')).message, /missing/);
  }
  await files.rotate();
  await move();
  const third = await files.rotate();
  await server.admin.call('localAuthority', 'PrepareX509Authority');
  assert.equal((await state()).prepared.upstream_authority_subject_key_id, third);
  assert.match((await refusal('Taint', third)).message, /signed the prepared X.509 authority/);
});

test('an upstream that still signs below a tainted or revoked root is refused with the reason, and the next good one is taken', async (t) => {
  const { server, files, move, taint, revoke, roots, state } = await below(t);
  const old = files.root();
  const kept = await keep(files);
  const next = await files.rotate();
  await move();
  await taint(old);
  await kept.back();
  const prepare = () => server.admin.refusal('localAuthority', 'PrepareX509Authority');
  assert.match((await prepare()).message, new RegExp(`below root ${old}, which is tainted here`));
  await revoke(old);
  const refused = await prepare();
  assert.equal(refused.status, Status.FAILED_PRECONDITION);
  assert.match(`${refused.message} ${refused.hint}`, /which is revoked here.*sign below another root/);
  await server.clock.advance(60_000);
  assert.deepEqual(await roots(), [next], 'what the upstream still names is not taken up again');
  await server.restart();
  assert.deepEqual(await stepsOf(server).roots(), [next], 'nor after a restart');
  const third = await files.rotate();
  const { prepared_authority } = await server.admin.call('localAuthority', 'PrepareX509Authority');
  assert.equal(prepared_authority.upstream_authority_subject_key_id, third);
  assert.ok(await state());
});

/** The files as they are now, to be put back. */
async function keep(files: UpstreamFiles) {
  const names = ['cert.pem', 'key.pem', 'roots.pem'].map(files.at);
  const texts = await Promise.all(names.map((name) => readFile(name)));
  return { back: () => Promise.all(names.map((name, index) => writeFile(name, texts[index]!))) };
}

test('two servers on one database: a root tainted at one is left by the other, and its revocation does not lose to a server that was away', async (t) => {
  const clock = drivenClock();
  const files = await upstreamFiles(clock.now());
  t.after(files.close);
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const [one, two, away] = [
    await testServer(t, { clock, store, flags: files.flags }),
    await testServer(t, { clock, store, flags: files.flags }),
    await testServer(t, { clock, store, flags: files.flags }),
  ];
  const old = files.root();
  await away.stop();
  const next = await files.rotate();
  const here = stepsOf(one);
  const there = stepsOf(two);
  await here.move();
  await here.taint(old);
  await looked(two, async () => (await there.state()).active.upstream_authority_subject_key_id === next);
  const { old: left } = await there.state();
  assert.equal(left.upstream_authority_subject_key_id, old);
  await here.revoke(old);
  await looked(two, async () => (await there.state()).old === null);

  await away.restart();
  const late = stepsOf(away);
  assert.deepEqual(await late.roots(), [next], 'it does not bring the root back that its own authority leads to');
  assert.equal((await late.state()).active.upstream_authority_subject_key_id, next);
  const { chain } = await away.mint('/late');
  verifyX509Svid(chain, await away.bundle(), clock.now());
});

test('a taint that got no further than the bundle is finished by the next look: what the listener presents moves too', async (t) => {
  const { server, files, state, move } = await below(t);
  const old = files.root();
  await files.rotate();
  const { authority_id } = (await state()).active;
  await move();
  const bundle = await server.bundle();
  const x509Authorities = bundle.x509Authorities.map((one) => ({
    ...one,
    tainted: authorityId(parseCertificate(one.certificate)) === old,
  }));
  assert.ok(
    await server.store.bundles.put({ ...bundle, x509Authorities, sequence: bundle.sequence + 1n }, bundle.sequence),
  );
  const signer = async () => {
    const { svid_chain } = await server.admin.call('debug', 'GetInfo');
    return svid_chain[1]?.subject as string;
  };
  const before = await signer();
  await looked(server, async () => (await signer()) !== before);
  assert.equal((await state()).old.authority_id, authority_id);
});

test('a server that cannot leave a tainted root, since its upstream has none better yet, still takes over what that one holds', async (t) => {
  const { server, files, state, roots } = await below(t, { intermediate: true });
  const old = files.root();
  const bundle = await server.bundle();
  // Another server of the same database was told so.
  const x509Authorities = bundle.x509Authorities.map((one) => ({ ...one, tainted: true }));
  const { sequence } = bundle;
  assert.ok(await server.store.bundles.put({ ...bundle, x509Authorities, sequence: sequence + 1n }, sequence));
  const other = testAuthority({ now: server.clock.now(), root: { uris: [] } });
  const known = await readFile(files.at('roots.pem'), 'utf8');
  await writeFile(files.at('roots.pem'), known + pemEncode('CERTIFICATE', other.der));
  const id = authorityId(other.certificate);
  await looked(server, async () => (await roots()).includes(id));
  assert.deepEqual(await roots(), [`${old} tainted`, id]);
  assert.equal((await state()).active.upstream_authority_subject_key_id, old, 'and goes on as it can');
  const next = await files.rotate();
  await looked(server, async () => (await state()).active.upstream_authority_subject_key_id === next);
});
