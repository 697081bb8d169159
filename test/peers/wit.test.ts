/** WIT-SVIDs as go-spiffe and PyJWT see them: fetched, verified, rotated, and absent below a server that has none. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import test from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { mutual } from './support/mutual.ts';
import {
  type Agent,
  createEntry,
  joinToken,
  type Make,
  type Server,
  startAgent,
  startServer,
  workload,
  writeBundle,
} from './support/pair.ts';
import { type Place, withPlace } from './support/place.ts';
import { run } from './support/program.ts';
import { until } from './support/until.ts';

const alias = 'spiffe://example.org/node';
const id = 'spiffe://example.org/web';
const enabled = { witSvids: { enabled: true } };

async function pairOf(place: Place, make: Make): Promise<{ server: Server; agent: Agent }> {
  const server = await startServer(make, place, 'server', make === 'mutual' ? { config: enabled } : {});
  const agent = await startAgent('mutual', place, 'agent', server, {
    bundle: await writeBundle(server),
    joinToken: await joinToken(server, alias),
    config: enabled,
  });
  await createEntry(server, id, alias, [`unix:uid:${process.getuid!()}`]);
  // Below a server that cannot push, the agent may hear of the entry at its next poll only.
  await until('an SVID for the entry', 60_000, () => workload(agent, 'x509'), 200);
  return { server, agent };
}

test('WA-38 WA-37 go-spiffe fetches and verifies WIT-SVIDs and their keys, and follows a rotation of their authority', () =>
  withPlace(async (place) => {
    const { server, agent } = await pairOf(place, 'mutual');
    const { svids } = await workload(agent, 'wit');
    const [one] = svids as { id: string; key: string }[];
    assert.equal(one?.id, id);

    const watching = await place.start('watch', peerPath('peer-workload'), [
      ...['watch-wit', '-socket', `unix://${agent.socket}`],
    ]);
    await watching.event('update', (event) => (event.svids as { key: string }[])[0]?.key === one?.key);
    const rotated = await mutual([
      ...[
        'authority',
        'rotate',
        '--planned',
        '--only',
        'wit',
        '--output',
        'json',
        '--admin-socket',
        server.adminSocket,
      ],
    ]);
    assert.equal(rotated.code, 0, rotated.stderr);
    const { authorities } = JSON.parse(rotated.stdout.trimEnd().split('\n').at(-1)!);
    const next: string = authorities[0].new_authority_id;
    await watching.event('update', (event) => (event.svids as { key: string }[])[0]?.key === next);
    assert.equal(((await workload(agent, 'wit')).svids as { key: string }[])[0]?.key, next);
    assert.deepEqual(watching.events('refused'), []);
  }));

test('WIT-23 PyJWT verifies a token by the bundle and the proof by the key in it, as the command line sends both', () =>
  withPlace(async (place) => {
    const { server, agent } = await pairOf(place, 'mutual');
    const audience = 'https://db.example.org';
    const fetched = await mutual([
      'fetch',
      'wit',
      '--audience',
      audience,
      '--output',
      'json',
      '--socket',
      agent.socket,
    ]);
    assert.equal(fetched.code, 0, fetched.stderr);
    const { headers } = JSON.parse(fetched.stdout);
    const shown = await mutual(['bundle', 'show', '--format', 'spiffe', '--admin-socket', server.adminSocket]);
    const bundle = place.path('bundle.json');
    writeFileSync(bundle, shown.stdout);
    const script = new URL('py/verify_wit.py', import.meta.url).pathname;
    const [token, proof] = [headers['workload-identity-token'], headers['workload-proof-token']];
    const verified = await run(peerPath('py-spiffe'), [script, bundle, audience, token, proof]);
    assert.equal(verified.code, 0, verified.stderr);
    const { header, claims, type } = JSON.parse(verified.stdout);
    assert.deepEqual([header.typ, claims.sub, type], ['wit+jwt', id, 'wpt+jwt']);
  }));

test('WA-3 WA-4 below a Go server the agent says that there are none, and go-spiffe gives up the profile', () =>
  withPlace(async (place) => {
    const { agent } = await pairOf(place, 'spire');
    await assert.rejects(workload(agent, 'wit'), /Unimplemented/);
    const watching = await place.start('watch', peerPath('peer-workload'), [
      ...['watch-wit', '-socket', `unix://${agent.socket}`],
    ]);
    assert.match(String((await watching.event('ended')).error), /Unimplemented/);
  }));
