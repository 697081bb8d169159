/** Hybrid post-quantum key exchange required by one end, Go's program at the other. */
import assert from 'node:assert/strict';
import test, { describe } from 'node:test';
import { connect } from 'node:tls';
import { createEntry, joinToken, type Make, startAgent, startServer, workload, writeBundle } from './support/pair.ts';
import { type Place, withPlace } from './support/place.ts';

const node = 'spiffe://example.org/node';

async function serves(place: Place, make: { server: Make; agent: Make }, requirePostQuantum: boolean) {
  const server = await startServer(make.server, place, 'server', { requirePostQuantum });
  await createEntry(server, 'spiffe://example.org/web', node, [`unix:uid:${process.getuid?.()}`]);
  const agent = await startAgent(make.agent, place, 'agent', server, {
    joinToken: await joinToken(server, node),
    bundle: await writeBundle(server),
    ...(make.agent === 'mutual' && { config: { tls: { requirePostQuantum: true } } }),
  });
  const svid = await workload(agent, 'x509');
  const group = await new Promise<unknown>((resolve, reject) => {
    const socket = connect({ port: server.port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      resolve((socket.getEphemeralKeyInfo() as { name: string }).name);
      socket.destroy();
    });
  });
  return { svid: JSON.stringify(svid), group };
}

describe('post-quantum key exchange', { concurrency: 2 }, () => {
  test("Go's agent is served by our server that requires it", async () => {
    const { svid, group } = await withPlace((place) => serves(place, { server: 'mutual', agent: 'spire' }, true));
    assert.match(svid, /spiffe:\/\/example\.org\/web/);
    assert.equal(group, 'X25519MLKEM768');
  });

  test("our agent that requires it is served by Go's server", async () => {
    const { svid, group } = await withPlace((place) => serves(place, { server: 'spire', agent: 'mutual' }, false));
    assert.match(svid, /spiffe:\/\/example\.org\/web/);
    assert.equal(group, 'X25519MLKEM768');
  });
});
