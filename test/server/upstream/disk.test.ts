/** Upstream `disk`: real files, read at each signature; what is wrong with them is said, and the server goes on. */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { diskUpstream } from '../../../server/upstream/disk.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { upstreamSuite } from '../../suites/upstream.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';
import { testServer } from '../../support/server.ts';
import { upstreamFiles } from '../../support/upstream-files.ts';

async function files(options: { intermediate?: boolean; pathLength?: number } = {}) {
  const clock = drivenClock();
  const kept = await upstreamFiles(clock.now(), options);
  const rotate = async (): Promise<void> => void (await kept.rotate());
  return { ...kept, clock, rotate, upstream: diskUpstream(kept.paths, { clock, random: systemRandom }) };
}

upstreamSuite('disk, a root', () => files());
upstreamSuite('disk, an intermediate', () => files({ intermediate: true }));

test('a path length above that forbids us stops the start, with a sentence', async (t) => {
  const under = await files({ pathLength: 0 });
  t.after(under.close);
  await assert.rejects(testServer(t, { clock: under.clock, flags: under.flags }), /path length allows no certificate/);
});

test('files that are wrong while the server runs: each is told, the server stays up, no half-made authority stays', async (t) => {
  const under = await files();
  t.after(under.close);
  const server = await testServer(t, { clock: under.clock, flags: under.flags });
  const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
  const keys = async () => (await server.keys.list()).length;
  const before = await keys();
  const prepare = () => server.admin.refusal('localAuthority', 'PrepareX509Authority');

  const expired = testAuthority({ now: under.clock.now(), root: { uris: [], notAfter: under.clock.now() - 5_000 } });
  await under.put(expired);
  assert.match((await prepare()).message, /expired at/);
  const other = testAuthority({ now: under.clock.now() });
  await under.put(other.intermediate(), other);
  assert.match((await prepare()).message, /did not sign itself/);
  await writeFile(under.at('cert.pem'), 'nothing');
  assert.match((await prepare()).message, /not PEM/);
  await rm(under.at('cert.pem'));
  assert.match((await prepare()).message, /cannot be read/);

  assert.equal((await state()).prepared, null);
  assert.equal(await keys(), before + 1, 'one key waits for its certificate, however often it was asked for');
  assert.ok((await server.mint('/workload')).chain.length > 0);
  assert.match(server.lines.join(''), /upstream authority cannot be used/);

  await under.rotate();
  const { prepared_authority: prepared } = await server.admin.call('localAuthority', 'PrepareX509Authority');
  assert.equal((await state()).prepared.authority_id, prepared.authority_id);
  assert.equal(await keys(), before + 1);
});

test('a server that signed its own root moves below an upstream authority without a restart of what it serves', async (t) => {
  const under = await files();
  t.after(under.close);
  const server = await testServer(t, { clock: under.clock });
  const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
  const { active: own } = await state();
  await server.restart(under.flags);
  assert.equal((await state()).active.authority_id, own.authority_id, 'at first it goes on');
  // Between two looks calls go through the server, so that what time began can end.
  let { active, old } = await state();
  for (let look = 0; look < 1_000 && active.authority_id === own.authority_id; look++) {
    await under.clock.advance(5_000);
    ({ active, old } = await state());
  }
  assert.notEqual(active.upstream_authority_subject_key_id, '');
  assert.equal(old.authority_id, own.authority_id);
  assert.equal((await server.bundle()).x509Authorities.length, 2);
});
