/** Connections to servers that accept and then say nothing, on real sockets: none outlives the wish for it. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { Fault } from '../../../src/errors.ts';
import { connectTls } from '../../../src/rpc/connect.ts';
import { parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';

const trustDomain = parseTrustDomain('example.org');
const now = Date.now();
const ca = testAuthority({ now });
const limit = { timeout: 30_000 };

/** A channel to a server that does no more than it was made to do. */
async function rig(t: TestContext, server: Server) {
  const accepted: Socket[] = [];
  server.on('connection', (socket: Socket) => {
    socket.on('error', () => {});
    accepted.push(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const clock = drivenClock(now);
  const channel = connectTls({
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    trustDomain,
    expect: serverId(trustDomain),
    bundle: () => [ca.der],
    clock,
  });
  t.after(() => {
    channel.close();
    for (const socket of accepted) socket.destroy();
    server.close();
  });
  const call = (): Promise<unknown> => {
    const called = channel.unary('spire.api.server.agent.v1.Agent', 'CountAgents', {});
    called.catch(() => {});
    return called;
  };
  const next = async (): Promise<Socket> => {
    const [socket] = await once(server, 'connection');
    socket.resume();
    return socket;
  };
  return { channel, clock, call, next };
}

const mute = (): Server => createServer();
/** Shakes hands and leaves it at that. */
const halfMute = (): Server => {
  const { chain, key } = ca.issue({ id: serverId(trustDomain) });
  const shown = { chain, key: createPrivateKey({ key: key!.exportPkcs8!(), format: 'der', type: 'pkcs8' }) };
  return createTlsServer({ ...secureContextOptions(shown), ALPNProtocols: ['h2'] }, (socket) => {
    socket.on('error', () => {});
    socket.resume();
  });
};

test('a connection that nobody has answered on is closed when another takes its place', limit, async (t) => {
  const { channel, call, next } = await rig(t, mute());
  for (let times = 0; times < 3; times += 1) {
    const came = next();
    void call();
    const closed = once(await came, 'close');
    channel.reconnect();
    await closed;
  }
});

test('one that was answered in the handshake and no further is closed too', limit, async (t) => {
  const server = halfMute();
  const { channel, call } = await rig(t, server);
  const shaken = once(server, 'secureConnection');
  void call();
  const [socket] = await shaken;
  assert.equal(channel.isWaiting, true);
  const closed = once(socket, 'close');
  channel.close();
  await closed;
});

test('who is not answered waits for twenty seconds, and says that it waits', limit, async (t) => {
  const { channel, clock, call, next } = await rig(t, mute());
  assert.equal(channel.isWaiting, false);
  const came = next();
  const failed = call();
  const socket = await came;
  const said = once(socket, 'data');
  await said;
  assert.equal(channel.isWaiting, true);
  const closed = once(socket, 'close');
  await clock.advance(19_999);
  assert.equal(channel.isWaiting, true);
  await clock.advance(1);
  await closed;
  assert.equal(channel.isWaiting, false);
  await assert.rejects(
    failed,
    (fault) => fault instanceof Fault && /no connection was made in 20 s/.test(fault.message),
  );
});
