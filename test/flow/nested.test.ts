/** Three servers of ours below each other, each with an agent, while the root is replaced: what workloads hold fits at every moment. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { authorityId } from '../../src/crypto/certificate.ts';
import { verifyChain } from '../../src/crypto/chain.ts';
import { type Pair, type SvidUpdate, startPair } from '../support/pair.ts';
import { api } from '../support/server.ts';

const authority = (pair: Pair, method: string, request: object = {}) =>
  pair.admin.call(api.localAuthority, method, request);

/** The server and the agent of the next level, which this one takes for `name`. */
async function below(t: TestContext, pair: Pair, name: string): Promise<Pair> {
  await pair.admin.createEntry(name, { downstream: true });
  const updates = pair.watchX509();
  await updates.next();
  await updates.close();
  const { host, port } = pair.server.address;
  return startPair(t, {
    clock: pair.clock,
    server: {
      'upstream-authority': 'spire',
      'upstream-spire-server': `${host}:${port}`,
      'upstream-spire-workload-api-socket': pair.agent.socket,
    },
  });
}

/** The newest SVID of a workload, as its stream brings them. */
async function follow(t: TestContext, pair: Pair, name: string): Promise<{ readonly value: SvidUpdate }> {
  await pair.admin.createEntry(name);
  const stream = pair.watchX509();
  const isMine = ({ spiffeId }: SvidUpdate) => spiffeId.endsWith(name);
  let value: SvidUpdate | undefined;
  while (value === undefined) value = (await stream.next()).find(isMine);
  const followed = { value };
  let open = true;
  void (async () => {
    while (open) {
      const update = await stream.next().catch(() => undefined);
      if (update === undefined) return;
      followed.value = update.find(isMine) ?? followed.value;
    }
  })();
  t.after(() => {
    open = false;
    return stream.close();
  });
  return followed;
}

test('the root of three levels is prepared, activated, tainted and revoked: workloads verify each other at every step', async (t) => {
  const root = await startPair(t);
  const { clock } = root;
  const middle = await below(t, root, '/middle');
  const leaf = await below(t, middle, '/leaf');
  const all = [root, middle, leaf];
  const holders = [await follow(t, root, '/a'), await follow(t, middle, '/b'), await follow(t, leaf, '/c')];

  let checked = 0;
  /** Each against what each other one trusts, itself included. */
  const verify = (): void => {
    for (const { value: shown } of holders)
      for (const { value: judge } of holders) {
        verifyChain(shown.leaf, shown.intermediates, judge.bundle, clock.now());
        checked++;
      }
  };
  const depths = () => holders.map(({ value }) => value.intermediates.length);
  const passUntil = async (what: string, isSo: () => boolean): Promise<void> => {
    for (let step = 0; !isSo(); step++) {
      assert.ok(step < 200, what);
      await root.pass(clock.advance(1_000), 0);
      for (const pair of all) await pair.admin.call(api.bundle, 'CountBundles', {});
      verify();
    }
  };
  verify();
  assert.deepEqual(depths(), [0, 1, 2]);

  const { active: old } = await authority(root, 'GetX509AuthorityState');
  const { prepared_authority: next } = await authority(root, 'PrepareX509Authority');
  await passUntil('all know the new root', () => holders.every(({ value }) => value.bundle.length === 2));
  await authority(root, 'ActivateX509Authority', { authority_id: next.authority_id });
  await authority(root, 'TaintX509Authority', { authority_id: old.authority_id });
  const highest = ({ value }: { value: SvidUpdate }) => value.intermediates.at(-1) ?? value.leaf;
  await passUntil('all lead to the new root', () =>
    holders.every((one) => highest(one).authorityKeyId?.toString('hex') === next.authority_id),
  );
  await authority(root, 'RevokeX509Authority', { authority_id: old.authority_id });
  await passUntil('nobody trusts the old root', () => holders.every(({ value }) => value.bundle.length === 1));
  for (const { value } of holders) assert.equal(authorityId(value.bundle[0]!), next.authority_id);
  assert.deepEqual(depths(), [0, 1, 2]);
  assert.ok(checked > 100);

  // Keys of tokens of all three are at the top.
  const { jwt_authorities: keys } = await root.admin.call(api.bundle, 'GetBundle', {});
  assert.equal(keys.length, 3);
});
