/** Whose turn it is to shake hands, on real sockets and a driven clock. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { handshakesInTurn } from '../../../src/rpc/handshakes.ts';
import { parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';

const now = Date.now();
const { chain, key } = testAuthority({ now }).issue({ id: serverId(parseTrustDomain('example.org')) });
const credentials = {
  chain,
  key: createPrivateKey({ key: key!.exportPkcs8!(), format: 'der', type: 'pkcs8' }),
};

const limit = { timeout: 120_000 };

async function listen(t: TestContext) {
  const clock = drivenClock(now);
  const tls = createServer({ ...secureContextOptions(credentials), handshakeTimeout: 60_000 });
  const begun: number[] = [];
  tls.on('connection', (socket: Socket) => begun.push(socket.remotePort!));
  const { listener, dismiss } = handshakesInTurn(tls, 10_000, clock);
  // As the server in front has them, in the order in which they came.
  const accepted: Socket[] = [];
  listener.on('connection', (socket: Socket) => accepted.push(socket));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  const made: Socket[] = [];
  t.after(() => {
    for (const socket of [...made, ...accepted]) socket.destroy();
    listener.close();
  });
  /** One connection that says `bytes`; they have been read when this resolves. */
  const say = async (bytes: Buffer): Promise<Socket> => {
    const came = once(listener, 'connection');
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    made.push(socket);
    const [seen] = (await came) as [Socket];
    if (bytes.length === 0) return socket;
    const read = once(seen, 'data');
    socket.write(bytes);
    await read;
    return socket;
  };
  const several = async (count: number, bytes: Buffer): Promise<Socket[]> => {
    const sockets: Socket[] = [];
    for (let one = 0; one < count; one += 1) sockets.push(await say(bytes));
    return sockets;
  };
  const honest = (): TLSSocket => {
    const socket = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false });
    made.push(socket);
    return socket;
  };
  return { clock, tls, begun, accepted, say, several, honest, dismiss };
}

const nothing = Buffer.alloc(0);
/** The start of a message of TLS 1.2: the rest of it is waited for. */
const half = Buffer.from([22, 3, 1, 0, 200, 1]);

test('connections that say nothing keep nobody out, and end after ten seconds', limit, async (t) => {
  const { clock, begun, several, honest } = await listen(t);
  const silent = await several(200, nothing);
  await once(honest(), 'secureConnect');
  assert.equal(begun.length, 1);
  const ended = silent.map((socket) => once(socket.resume(), 'close'));
  await clock.advance(10_000);
  await Promise.all(ended);
});

test('64 handshakes are under way at a time, and the next begins when one of them goes away', limit, async (t) => {
  const { begun, several, honest } = await listen(t);
  const [first, ...others] = await several(66, half);
  assert.equal(begun.length, 64);
  const next = honest();
  first!.destroy();
  others[0]!.destroy();
  others[1]!.destroy();
  await once(next, 'secureConnect');
  assert.equal(begun.length, 67);
});

test('handshakes that stop half way keep others out for half a second', limit, async (t) => {
  const { clock, tls, begun, several, honest } = await listen(t);
  await several(64, half);
  const done = once(tls, 'secureConnection');
  await once(honest(), 'connect');
  assert.equal(begun.length, 64);
  await clock.advance(500);
  await done;
});

test('who goes away while it waits is passed over, and leaves nothing behind', limit, async (t) => {
  const { clock, accepted, begun, several } = await listen(t);
  await several(64, half);
  const impatient = await several(20, half);
  const gone = accepted.slice(64).map((socket) => once(socket, 'close'));
  for (const socket of impatient) socket.end();
  await Promise.all(gone);
  const [last] = await several(1, half);
  await clock.advance(500);
  assert.equal(begun.length, 65);
  assert.equal(begun.at(-1), last!.localPort);
});

test('the first comes first, until it has waited for fifteen seconds: then the last does', limit, async (t) => {
  const { clock, tls, begun, several } = await listen(t);
  await several(64, half);
  await clock.advance(500);
  const more = await several(64, half);
  const [first, second, third, fourth] = await several(4, half);
  assert.equal(begun.length, 128);
  const leave = async (socket: Socket): Promise<void> => {
    const began = once(tls, 'connection');
    socket.destroy();
    await began;
  };
  await leave(more[0]!);
  assert.equal(begun.at(-1), first!.localPort);
  clock.jump(15_001);
  await leave(more[1]!);
  assert.equal(begun.at(-1), fourth!.localPort);
  await leave(more[2]!);
  assert.equal(begun.at(-1), third!.localPort);
  await leave(more[3]!);
  assert.equal(begun.at(-1), second!.localPort);
});

test('who says more than a first message before its turn is dropped', limit, async (t) => {
  const { accepted, several, say } = await listen(t);
  await several(64, half);
  const socket = await say(half);
  const dropped = once(accepted.at(-1)!, 'close');
  socket.write(Buffer.alloc(20_000));
  await dropped;
});

test('a server that closes dismisses those in line, and those that said nothing', limit, async (t) => {
  const { accepted, several, dismiss } = await listen(t);
  await several(65, half);
  await several(1, nothing);
  const gone = accepted.slice(64).map((socket) => once(socket, 'close'));
  dismiss();
  await Promise.all(gone);
});
