import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authorityId, isSignedBy } from '../../src/crypto/certificate.ts';
import { verifyChain } from '../../src/crypto/chain.ts';
import { type Pair, type SvidUpdate, startPair } from '../support/pair.ts';
import { upstreamFiles } from '../support/upstream-files.ts';

const authority = 'spire.api.server.localauthority.v1.LocalAuthority';
const minute = 60_000;

/** Takes updates, moving time on, until one satisfies `wanted`. Each must verify with the bundle that came with it. */
async function updateWith(
  pair: Pair,
  stream: { next(): Promise<readonly SvidUpdate[]> },
  wanted: (update: SvidUpdate) => boolean,
): Promise<SvidUpdate> {
  for (;;) {
    const [update] = await pair.pass(stream.next(), minute);
    assert.ok(update);
    assert.ok(
      update.bundle.some((root) => isSignedBy(update.leaf, root)),
      'an SVID came before the authority that signed it',
    );
    assert.ok(update.leaf.notAfter > pair.clock.now(), 'an SVID came that had ended');
    if (wanted(update)) return update;
  }
}

test('FED-1 authorities rotate by themselves: published first, signing later, and no SVID without its root', async (t) => {
  const pair = await startPair(t, { server: { caTtl: '1h', defaultX509SvidTtl: '10m' } });
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  const first = (await stream.next())[0] as SvidUpdate;
  assert.equal(first.bundle.length, 1);

  const published = await updateWith(pair, stream, ({ bundle }) => bundle.length === 2);
  assert.ok(isSignedBy(published.leaf, first.bundle[0]!), 'the new authority signed as soon as it was published');
  const rotated = await updateWith(pair, stream, ({ leaf }) => !isSignedBy(leaf, first.bundle[0]!));
  assert.equal(rotated.bundle.length, 2);
  await stream.close();
});

test('a tainted authority is left by every SVID before it is revoked', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  const first = (await stream.next())[0] as SvidUpdate;
  const old = first.bundle[0]!;

  const { prepared_authority: prepared } = await pair.admin.call(authority, 'PrepareX509Authority', {});
  await pair.admin.call(authority, 'ActivateX509Authority', { authority_id: prepared.authority_id });
  const { old: state } = await pair.admin.call(authority, 'GetX509AuthorityState', {});
  await pair.admin.call(authority, 'TaintX509Authority', { authority_id: state.authority_id });
  const moved = await updateWith(pair, stream, ({ leaf }) => !isSignedBy(leaf, old));
  assert.ok(
    moved.bundle.some(({ der }) => der.equals(old.der)),
    'the old authority went before its time',
  );
  await pair.admin.call(authority, 'RevokeX509Authority', { authority_id: state.authority_id });
  await updateWith(pair, stream, ({ bundle }) => !bundle.some(({ der }) => der.equals(old.der)));
  await stream.close();
});

test('below an upstream authority: a tainted root is left by agent and workload at once, a revoked one is in no bundle, and the agent is served on', async (t) => {
  const files = await upstreamFiles(Date.now());
  t.after(files.close);
  const pair = await startPair(t, { server: files.flags });
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  const rootIds = ({ bundle }: SvidUpdate) => bundle.map(authorityId);
  const next = async (wanted: (update: SvidUpdate) => boolean): Promise<SvidUpdate> => {
    for (;;) {
      const [update] = await pair.pass(stream.next(), 1000);
      assert.ok(update);
      verifyChain(update.leaf, update.intermediates, update.bundle, pair.clock.now());
      if (wanted(update)) return update;
    }
  };
  const old = files.root();
  const first = await next(() => true);
  assert.deepEqual(rootIds(first), [old]);

  const root = await files.rotate();
  const { prepared_authority: prepared } = await pair.admin.call(authority, 'PrepareX509Authority', {});
  await next((update) => rootIds(update).includes(root));
  await pair.admin.call(authority, 'ActivateX509Authority', { authority_id: prepared.authority_id });
  const agents = 'spire.api.server.agent.v1.Agent';
  const serial = async () => (await pair.admin.call(agents, 'ListAgents', {})).agents[0].x509svid_serial_number;
  const before = await serial();
  await pair.admin.call(authority, 'TaintX509UpstreamAuthority', { subject_key_id: old });
  const moved = await next(({ intermediates }) => authorityId(intermediates[0]!) === prepared.authority_id);
  assert.deepEqual(rootIds(moved).sort(), [old, root].sort(), 'the tainted root is trusted until it is revoked');
  for (let look = 0; look < 1_000 && (await serial()) === before; look++) await pair.clock.advance(1000);
  assert.notEqual(await serial(), before, 'the agent renews its own SVID too');

  await pair.admin.call(authority, 'RevokeX509UpstreamAuthority', { subject_key_id: old });
  await next((update) => rootIds(update).length === 1 && rootIds(update)[0] === root);
  await pair.stopAgent();
  await pair.startAgent();
  await pair.admin.createEntry('/later');
  const again = pair.watchX509();
  const served = await pair.pass(again.next(), 1000);
  assert.ok(
    served.every(({ leaf, intermediates, bundle }) => verifyChain(leaf, intermediates, bundle, pair.clock.now())),
  );
  await again.close();
});

for (const below of [false, true])
  test(`an agent that was away while ${below ? 'the root above' : 'the authority'} was replaced comes back by the old one, as who it was`, async (t) => {
    const files = await upstreamFiles(Date.now());
    t.after(files.close);
    const pair = await startPair(t, below ? { server: files.flags } : {});
    await pair.admin.createEntry('/web');
    const stream = pair.watchX509();
    await stream.next();
    await stream.close();
    await pair.stopAgent();
    await files.rotate();
    const { prepared_authority: next } = await pair.admin.call(authority, 'PrepareX509Authority', {});
    await pair.admin.call(authority, 'ActivateX509Authority', { authority_id: next.authority_id });
    const { old } = await pair.admin.call(authority, 'GetX509AuthorityState', {});
    await (below
      ? pair.admin.call(authority, 'TaintX509UpstreamAuthority', {
          subject_key_id: old.upstream_authority_subject_key_id,
        })
      : pair.admin.call(authority, 'TaintX509Authority', { authority_id: old.authority_id }));

    await pair.startAgent();
    const again = pair.watchX509();
    const isNew = ({ leaf }: SvidUpdate) => leaf.authorityKeyId!.toString('hex') === next.authority_id;
    while (!isNew((await pair.pass(again.next(), 1000))[0]!)) {}
    await again.close();
    const { agents } = await pair.admin.call('spire.api.server.agent.v1.Agent', 'ListAgents', {});
    assert.equal(agents.length, 1, 'it did not attest anew');
  });
