/** What the server presents after its authority changed: whoever trusts the old one alone, or its root, still verifies it. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { startAuthorities } from '../../../server/authorities.ts';
import { readServerOptions } from '../../../server/config.ts';
import { openStore } from '../../../server/store/open.ts';
import { diskUpstream } from '../../../server/upstream/disk.ts';
import { steadyUpstream } from '../../../server/upstream/steady.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { silentLog } from '../../../src/log.ts';
import { systemRandom as random } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { drivenClock } from '../../support/clock.ts';
import { td } from '../../support/server.ts';
import { type UpstreamFiles, upstreamFiles } from '../../support/upstream-files.ts';

const hour = 3_600_000;

async function authorities(t: TestContext, files?: UpstreamFiles) {
  const clock = drivenClock();
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(() => store.close());
  const { options } = await readServerOptions({ flags: { trustDomain: td, dataDir: '/nowhere' } });
  const ports = { store, keys: memoryKeys(), clock, random, log: silentLog, serverName: 'one' };
  const upstream = files && steadyUpstream(diskUpstream(files.paths, { clock, random }), td, ports);
  const held = await startAuthorities(options, { ...ports, upstream });
  const bundle = async (): Promise<Bundle> => (await store.bundles.get(td))!;
  return {
    clock,
    held,
    bundle,
    /** Prepares and activates; the server's own SVID follows when the old authority is tainted. */
    async move() {
      await held.x509.activate((await held.x509.prepare()).id);
    },
    async taint() {
      const { old } = held.x509.state();
      await (old!.upstream ? held.roots.ensureTainted(old!.upstream.id) : held.x509.taint(old!.id));
      await held.keepFresh();
    },
    async revoke() {
      const { old } = held.x509.state();
      await (old!.upstream ? held.roots.ensureRevoked(old!.upstream.id) : held.x509.revoke(old!.id));
      await held.keepFresh();
    },
    /** Whether what the server presents verifies by a bundle. */
    verifies(by: Bundle): boolean {
      try {
        return verifyX509Svid(held.serverSvid.value.chain, by, clock.now()).path.length > 0;
      } catch {
        return false;
      }
    },
    length: () => held.serverSvid.value.chain.length,
  };
}

const untainted = (bundle: Bundle): Bundle => ({
  ...bundle,
  x509Authorities: bundle.x509Authorities.filter(({ tainted }) => !tainted),
});

test('self-signed: the tainted authority leads to the new one until it is revoked', async (t) => {
  const one = await authorities(t);
  const old = await one.bundle();
  assert.equal(one.length(), 1);
  await one.move();
  await one.taint();
  assert.equal(one.length(), 2);
  assert.ok(one.verifies(old), 'an agent that was away');
  assert.ok(one.verifies(untainted(await one.bundle())), 'one that was not');
  await one.revoke();
  assert.equal(one.length(), 1);
  assert.ok(!one.verifies(old));
  assert.ok(one.verifies(await one.bundle()));
});

for (const intermediate of [false, true])
  test(`below an upstream authority, ${intermediate ? 'an intermediate' : 'a root'}: the old root leads to what the new one signed until it is revoked`, async (t) => {
    const files = await upstreamFiles(drivenClock().now(), { intermediate });
    t.after(files.close);
    const one = await authorities(t, files);
    const old = await one.bundle();
    await files.rotate();
    await one.move();
    await one.taint();
    assert.ok(one.verifies(old), 'an agent that was away');
    assert.ok(one.verifies(untainted(await one.bundle())), 'one that was not');
    await one.revoke();
    assert.ok(!one.verifies(old));
    assert.ok(one.verifies(await one.bundle()));
  });

test('where it helps nobody there is none: the same root above, an old authority that ended, a path too short', async (t) => {
  const files = await upstreamFiles(drivenClock().now());
  t.after(files.close);
  const same = await authorities(t, files);
  const before = same.length();
  await same.move();
  same.clock.jump(hour);
  await same.held.keepFresh();
  assert.equal(same.length(), before);

  const ended = await authorities(t);
  await ended.move();
  ended.clock.jump(30 * hour);
  await ended.held.keepFresh();
  await ended.held.keepFresh();
  const { old } = ended.held.x509.state();
  assert.ok(old === undefined || old.notAfter > ended.clock.now() || ended.length() === 1);

  const short = await upstreamFiles(drivenClock().now(), { pathLength: 1 });
  t.after(short.close);
  const narrow = await authorities(t, short);
  await short.rotate();
  await narrow.move();
  await narrow.taint();
  assert.equal(narrow.length(), 2, 'the leaf and its authority');
  assert.ok(narrow.verifies(await narrow.bundle()));
});
