/** Whole servers that share their JWT key in a key store elsewhere (a fake Transit, over real HTTP). */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import { decodeJwt } from '../../../src/crypto/jwt.ts';
import { systemClock } from '../../../src/run/clock.ts';
import { drivenClock } from '../../support/clock.ts';
import { fakeTransit } from '../../support/fake-transit.ts';
import { fault } from '../../support/fault.ts';
import { type TestServer, testServer, wireId } from '../../support/server.ts';

test('servers with one key store sign with one JWT key there; one with another store is refused and takes nothing', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-shared-'));
  const keysVaultTokenFile = join(dir, 'token');
  await writeFile(keysVaultTokenFile, 'the-token', { mode: 0o600 });
  const transits = await Promise.all([1, 2].map(() => fakeTransit({ clock: systemClock })));
  const store = await openStore({ url: 'sqlite::memory:' });
  t.after(async () => {
    for (const transit of transits) await transit.close();
    await store.close();
    await rm(dir, { recursive: true });
  });
  const flags = (transit: number): object => {
    transits[transit]!.addToken('the-token', {});
    return {
      keysStore: 'vault',
      keysVaultAddress: transits[transit]!.address,
      keysVaultTokenFile,
      keysShareJwt: true,
    };
  };
  const clock = drivenClock();
  const start = (transit: number): Promise<TestServer> =>
    testServer(t, { clock, store, flags: flags(transit) as Readonly<Record<string, unknown>> });
  const kidOf = async (server: TestServer): Promise<string> => {
    const request = { id: wireId('/web'), audience: ['a'] };
    return String(decodeJwt((await server.admin.call('svid', 'MintJWTSVID', request)).svid.token).header.kid);
  };

  const servers = [await start(0), await start(0)];
  const [kid] = await Promise.all(servers.map(kidOf));
  assert.equal(await kidOf(servers[1]!), kid);
  assert.equal(transits[0]!.keys.size, 1, 'X.509 keys are in memory here, and the JWT key is one');
  const before = await servers[0]!.bundle();
  assert.equal(before.jwtAuthorities.length, 1);

  await assert.rejects(start(1), fault('keys/lost', /^the JWT authority that all servers share has a key that is not/));
  assert.equal(transits[1]!.keys.size, 0);
  assert.deepEqual((await servers[0]!.bundle()).jwtAuthorities, before.jwtAuthorities);
  assert.equal(await kidOf(servers[0]!), kid);
});
