import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openState, type World } from '../../agent/state.ts';
import type { Fault } from '../../src/errors.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { agentRig } from './support/agent-rig.ts';
import { domain } from './support/fake-server.ts';

const otherKey = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  .privateKey.export({ type: 'pkcs8', format: 'der' })
  .toString('base64');

function directoryOf(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'mu-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

async function filled(t: TestContext) {
  const directory = directoryOf(t);
  const rig = await agentRig();
  rig.server.put({ id: 'a', hint: 'h', federatesWith: [parseTrustDomain('other.org')], admin: true });
  rig.server.put({ id: 'b', expiresAt: 4_000_000_000, disableX509SvidPrefetch: true, jwtSvidIncludeJti: true });
  await rig.start();
  rig.stop();
  const world: World = { entries: rig.cache.entries, bundles: rig.cache.bundles, ...rig.cache.position };
  const state = await openState(directory, domain, true);
  await state.saveNode(rig.record, rig.server.authority.bundle());
  await state.saveWorld(world);
  await state.saveSvids([...rig.cache.svids.values()]);
  return { directory, rig, world, state };
}

test('what was saved comes back as it was', async (t) => {
  const { directory, rig, world } = await filled(t);
  const again = await openState(directory, domain, true);
  assert.deepEqual(again.node, rig.record);
  assert.deepEqual(again.bundle, rig.server.authority.bundle());
  assert.deepEqual(again.world, world);
  assert.deepEqual(again.svids, [...rig.cache.svids.values()]);
  assert.deepEqual(again.dropped, []);
});

test('a world that is written in many pieces comes back whole', async (t) => {
  const { directory, state, world } = await filled(t);
  const [first] = world.entries.values();
  const many = new Map(Array.from({ length: 2_000 }, (_, at) => [`${at}`, { ...first!, id: `${at}` }]));
  await state.saveWorld({ ...world, entries: many });
  await state.saveSvids([]);
  const again = await openState(directory, domain, true);
  assert.deepEqual(again.world?.entries, many);
  assert.deepEqual(again.svids, []);
});

test('files are 0600 in a 0700 directory, also with an open umask', async (t) => {
  const before = process.umask(0);
  t.after(() => process.umask(before));
  const { directory } = await filled(t);
  assert.equal(statSync(join(directory, 'state')).mode & 0o777, 0o700);
  for (const name of readdirSync(join(directory, 'state'))) {
    assert.equal(statSync(join(directory, 'state', name)).mode & 0o777, 0o600, name);
  }
});

test('the agent’s SVID and its key are in one file: there is never one without the other', async (t) => {
  const { directory, rig } = await filled(t);
  const document = JSON.parse(readFileSync(join(directory, 'state', 'node.json'), 'utf8'));
  assert.equal(document.svid.key, rig.record.pkcs8.toString('base64'));
  assert.equal(document.svid.chain.length, rig.record.chain.length);
});

test('with keys in memory no private key is written', async (t) => {
  const directory = directoryOf(t);
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.stop();
  const state = await openState(directory, domain, false);
  await state.saveNode(rig.record, rig.server.authority.bundle());
  await state.saveWorld({ entries: rig.cache.entries, bundles: rig.cache.bundles, ...rig.cache.position });
  await state.saveSvids([...rig.cache.svids.values()]);
  const keys = [rig.record, ...rig.cache.svids.values()].map(({ pkcs8 }) => pkcs8.toString('base64'));
  for (const name of readdirSync(join(directory, 'state'))) {
    const text = readFileSync(join(directory, 'state', name), 'utf8');
    assert.ok(!keys.some((key) => text.includes(key)), name);
  }
  const again = await openState(directory, domain, false);
  assert.equal(again.node, undefined);
  assert.ok(again.bundle);
});

test('a data directory of another trust domain is refused by name', async (t) => {
  const { directory } = await filled(t);
  await assert.rejects(openState(directory, parseTrustDomain('other.org'), true), (fault: Fault) => {
    assert.equal(fault.code, 'data/foreign');
    assert.match(fault.message, /belongs to an agent of trust domain "example.org", not "other.org"/);
    return true;
  });
});

test('only the cache of another trust domain is refused too', async (t) => {
  const { directory } = await filled(t);
  rmSync(join(directory, 'state', 'node.json'));
  await assert.rejects(
    openState(directory, parseTrustDomain('other.org'), true),
    (fault: Fault) => fault.code === 'data/foreign',
  );
});

test('a directory written by a newer version is refused', async (t) => {
  const { directory } = await filled(t);
  const path = join(directory, 'state', 'node.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace('"version":1', '"version":2'));
  await assert.rejects(
    openState(directory, domain, true),
    (fault: Fault) => fault.code === 'data/foreign' && /newer version/.test(fault.message),
  );
});

for (const [name, damage] of [
  ['cut off', (text: string) => text.slice(0, text.length / 2)],
  ['empty', () => ''],
  ['another document', () => '[]'],
  ['without its key', (text: string) => text.replace('"key"', '"yek"')],
  ['with another key', (text: string) => text.replace(/"key":"[^"]*"/, `"key":"${otherKey}"`)],
  ['without its chain', (text: string) => text.replace('"chain"', '"niahc"')],
] as const) {
  test(`an own record that is ${name} is refused, and says what to do`, async (t) => {
    const { directory } = await filled(t);
    const path = join(directory, 'state', 'node.json');
    writeFileSync(path, damage(readFileSync(path, 'utf8')));
    await assert.rejects(
      openState(directory, domain, true),
      (fault: Fault) => fault.code === 'data/corrupt' && fault.message.includes(path) && fault.hint !== undefined,
    );
  });

  if (name === 'with another key') continue;
  test(`a cache that is ${name} is left aside, and the agent starts without it`, async (t) => {
    const { directory, rig } = await filled(t);
    for (const file of ['world.json', 'svids.json']) {
      const path = join(directory, 'state', file);
      writeFileSync(path, damage(readFileSync(path, 'utf8')).replace('"entries"', '"seirtne"'));
    }
    const again = await openState(directory, domain, true);
    assert.deepEqual(again.node, rig.record);
    assert.equal(again.world, undefined);
    assert.deepEqual(again.svids, []);
    assert.equal(again.dropped.length, 2);
  });
}

test('a record that others could read is refused', async (t) => {
  const { directory } = await filled(t);
  chmodSync(join(directory, 'state', 'node.json'), 0o644);
  await assert.rejects(openState(directory, domain, true), /mode 0644: others could have read its keys/);
});

test('what is forgotten does not come back with a write that was on its way', async (t) => {
  const { directory, rig, world, state } = await filled(t);
  await state.forget(rig.server.authority.bundle());
  await state.saveWorld(world);
  await state.saveSvids([...rig.cache.svids.values()]);
  assert.deepEqual(readdirSync(join(directory, 'state')), ['node.json']);
  const again = await openState(directory, domain, true);
  assert.equal(again.node, undefined);
  assert.ok(again.bundle);
});

test('of writes at once the last one asked for stays', async (t) => {
  const { directory, rig, state } = await filled(t);
  const bundles = Array.from({ length: 20 }, (_, index) => rig.server.authority.bundle({ sequence: BigInt(index) }));
  await Promise.all(bundles.map((bundle) => state.saveNode(rig.record, bundle)));
  assert.equal((await openState(directory, domain, true)).bundle?.sequence, 19n);
});

test('a data directory that cannot be made is refused with the system’s reason', async (t) => {
  const directory = directoryOf(t);
  writeFileSync(join(directory, 'file'), '');
  await assert.rejects(
    openState(join(directory, 'file'), domain, true),
    (fault: Fault) => fault.code === 'config/invalid' && fault.hint !== undefined,
  );
  assert.ok(existsSync(join(directory, 'file')));
});
