/** Ten servers on one PostgreSQL, each in a process of its own, that share the JWT authority: how many keys there come to be. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { adminOf } from '../../bench/agents/fleet.ts';
import { decodeJwt } from '../../src/crypto/jwt.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { systemClock as clock } from '../../src/run/clock.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import { type ClusterServer, startServer } from './support/cluster.ts';
import { mutual } from './support/mutual.ts';
import { makePlace } from './support/place.ts';
import { type Postgres, startPostgres } from './support/postgres.ts';

const [count, restarts] = [10, 50];
/** This many processes start at once: they are meant to come to the database together, on a machine of two cores. */
const atOnce = 5;
const place = makePlace();
let postgres: Postgres;
let database: string;
let servers: ClusterServer[];
let most = { jwt: 0, x509: 0 };

before(async () => {
  postgres = await startPostgres(place);
  database = await postgres.database();
  const passphraseFile = place.path('passphrase');
  writeFileSync(passphraseFile, 'the same on all servers', { mode: 0o600 });
  const keys = { store: 'disk', shareJwt: true, seal: { by: 'passphrase', passphraseFile } };
  servers = await inWaves(
    Array.from({ length: count }, (_, index) => index),
    (index) => startServer(place, `server${index}`, database, { keys }),
  );
});
after(() => place.close());

async function inWaves<T, R>(all: readonly T[], work: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let from = 0; from < all.length; from += atOnce)
    results.push(...(await Promise.all(all.slice(from, from + atOnce).map(work))));
  return results;
}

async function bundleOf(server: ClusterServer): Promise<Bundle> {
  const admin = adminOf(server.adminSocket);
  const bundle = await admin.bundle().finally(() => admin.close());
  most = {
    jwt: Math.max(most.jwt, bundle.jwtAuthorities.length),
    x509: Math.max(most.x509, bundle.x509Authorities.length),
  };
  return bundle;
}

/** The `kid` with which a server signs, of a token that the bundle verifies. */
async function kidOf(server: ClusterServer, bundle: Bundle): Promise<string> {
  const channel = connectUnix(server.adminSocket);
  try {
    const request = { id: { trust_domain: 'example.org', path: '/web' }, audience: ['a'] };
    const { svid } = (await channel.unary('spire.api.server.svid.v1.SVID', 'MintJWTSVID', request)) as {
      svid: { token: string };
    };
    await verifyJwtSvid(svid.token, 'a', () => bundle, clock.now());
    return String(decodeJwt(svid.token).header.kid);
  } finally {
    channel.close();
  }
}
const kids = async (bundle: Bundle): Promise<string[]> => [
  ...new Set(await Promise.all(servers.map((server) => kidOf(server, bundle)))),
];

test('ten servers, fifty restarts: one JWT key, ten X.509 authorities, and after a rotation the same', async () => {
  const start = await bundleOf(servers[0]!);
  const first = await kids(start);
  assert.equal(first.length, 1, 'all sign with one key');

  const order = Array.from({ length: restarts }, (_, index) => index);
  await inWaves(order, async (index) => {
    const server = servers[index % count]!;
    // Some are asked to stop, some are not.
    await server.program().stop(index % 3 === 0 ? 'SIGKILL' : 'SIGTERM');
    await server.restart();
    await bundleOf(server);
  });
  const restarted = await bundleOf(servers[3]!);
  console.log(
    `${count} servers, ${restarts} restarts: ${restarted.jwtAuthorities.length} JWT keys, ` +
      `${restarted.x509Authorities.length} X.509 authorities; at most ${most.jwt} and ${most.x509}`,
  );
  assert.deepEqual([restarted.jwtAuthorities.length, restarted.x509Authorities.length], [1, count]);
  assert.deepEqual(await kids(restarted), first, 'the same key as before');

  // One rotation for all of them; the server that began it is killed on the way, another one ends it.
  const rotate = (server: ClusterServer, wait: string) =>
    mutual(
      ['authority', 'rotate', '--emergency', '--only', 'jwt', '--admin-socket', server.adminSocket, '--wait', wait],
      { deadlineMs: 90_000 },
    );
  const beginning = rotate(servers[0]!, '60s');
  await servers[0]!.program().stop('SIGKILL');
  await beginning;
  await servers[0]!.restart();
  const finished = await rotate(servers[7]!, '60s');
  assert.equal(finished.code, 0, finished.stderr);
  const rotated = await bundleOf(servers[5]!);
  console.log(`after a rotation: ${rotated.jwtAuthorities.length} JWT keys; at most ${most.jwt} at any look`);
  assert.equal(rotated.jwtAuthorities.length, 1);
  const [next, ...more] = await kids(rotated);
  assert.deepEqual(more, []);
  assert.notEqual(next, first[0]);
  assert.ok(most.jwt <= 4, `${most.jwt} JWT keys at some moment`);

  const { rows } = await postgres.query("select text from journal where name = 'keys@shared'", database);
  assert.equal(Object.keys(JSON.parse(rows[0].text))[0], 'sealed', 'the database holds no key in plain');
});

test('a server with another passphrase is refused, and changes nothing', async () => {
  const passphraseFile = place.path('other');
  writeFileSync(passphraseFile, 'another', { mode: 0o600 });
  const keys = { store: 'disk', shareJwt: true, seal: { by: 'passphrase', passphraseFile } };
  const before = await bundleOf(servers[1]!);
  await assert.rejects(
    startServer(place, 'stranger', database, { keys }),
    /the passphrase does not open \\?"keys@shared in the database/,
  );
  const after = await bundleOf(servers[1]!);
  assert.deepEqual(after.jwtAuthorities, before.jwtAuthorities);
});
