/** The one connection of a channel: where it goes, when it is made, and when it is given up; on real sockets, by a driven clock. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Fault, Status } from '../../../src/errors.ts';
import { type Channel, connectTls } from '../../../src/rpc/connect.ts';
import { type Call, serveTls } from '../../../src/rpc/serve.ts';
import { live } from '../../../src/run/live.ts';
import { parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock, settle, until } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';

const agents = 'spire.api.server.agent.v1.Agent';
const trustDomain = parseTrustDomain('example.org');
const now = Date.now();
const ca = testAuthority({ now });
const limit = { timeout: 60_000 };
const minute = 60_000;

const shown = (authority = ca, wishes = {}) => {
  const { chain, key } = authority.issue({ id: serverId(trustDomain), ...wishes });
  return { chain, key: createPrivateKey({ key: key!.exportPkcs8!(), format: 'der', type: 'pkcs8' }) };
};

/** A server on an address of this machine, at a port that is free there. */
async function serve(t: TestContext, host: string, { port = 0, svid = shown() } = {}) {
  const calls: Call[] = [];
  const serving = await serveTls({
    at: { host, port },
    context: live(secureContextOptions(svid)),
    verifyClient: (chain) => verifyX509Svid(chain, ca.bundle(), now),
    services: [
      {
        name: agents,
        methods: {
          CountAgents: (_request, call) => void calls.push(call),
          async AttestAgent(requests, _call, send) {
            for await (const _request of requests) await send({ challenge: Buffer.from('?') });
          },
        },
      },
    ],
  });
  t.after(() => serving.close(0));
  return { calls, serving, port: serving.port };
}

function channelTo(t: TestContext, port: number, addresses: readonly string[], unit: () => number = () => 0) {
  const clock = drivenClock(now);
  const asked: string[] = [];
  const channel = connectTls({
    host: 'servers.example.org',
    port,
    lookup: async (host) => {
      asked.push(host);
      return addresses;
    },
    trustDomain,
    expect: serverId(trustDomain),
    bundle: () => [ca.der],
    clock,
    random: { unit },
  });
  t.after(() => channel.close());
  return { channel, clock, asked, addresses };
}
const call = (channel: Channel) => channel.unary(agents, 'CountAgents', {}, { deadlineMs: 50_000 });

test(
  'of several addresses one is used, from a random one on; where it breaks, the next; each time they are looked up',
  limit,
  async (t) => {
    const first = await serve(t, '127.0.0.1');
    const { port } = first;
    const all = [first, await serve(t, '127.0.0.2', { port }), await serve(t, '127.0.0.3', { port })];
    const { channel, asked } = channelTo(t, port, ['127.0.0.1', '127.0.0.2', '127.0.0.3'], () => 0.4);
    const counts = () => all.map(({ calls }) => calls.length);
    for (let i = 0; i < 3; i++) await call(channel);
    assert.deepEqual(counts(), [0, 3, 0]);
    assert.deepEqual(asked, ['servers.example.org']);
    await all[1]!.serving.close(0);
    await call(channel);
    assert.deepEqual(counts(), [0, 3, 1]);
    // From the second on again, but not where it was last.
    all[1] = await serve(t, '127.0.0.2', { port });
    await all[2]!.serving.close(0);
    await call(channel);
    assert.deepEqual(counts(), [0, 1, 1]);
    await all[1]!.serving.close(0);
    await call(channel);
    assert.deepEqual(counts(), [1, 1, 1]);
    assert.equal(asked.length, 4);
    // One that is left for another is not gone back to, though it answers.
    channel.reconnect();
    await serve(t, '127.0.0.2', { port });
    await call(channel);
    channel.reconnect();
    await call(channel);
    assert.deepEqual(counts(), [2, 1, 1]);
  },
);

test(
  'an address with a server that is not believed is passed over; where there is no other, that is what is said',
  limit,
  async (t) => {
    const strange = await serve(t, '127.0.0.1', { svid: shown(testAuthority({ now })) });
    const { port } = strange;
    const good = await serve(t, '127.0.0.3', { port });
    const both = channelTo(t, port, ['127.0.0.1', '127.0.0.2', '127.0.0.3']);
    await call(both.channel);
    assert.equal(good.calls.length, 1);
    for (const addresses of [
      ['127.0.0.1', '127.0.0.2'],
      ['127.0.0.2', '127.0.0.1'],
    ]) {
      const { channel } = channelTo(t, port, addresses);
      await assert.rejects(call(channel), fault('peer/untrusted', /did not prove to be/));
    }
    assert.equal(strange.calls.length, 0);
  },
);

test('a name without an address, and one that cannot be looked up, are not reached', limit, async (t) => {
  const { channel } = channelTo(t, 1, []);
  await assert.rejects(
    call(channel),
    fault('peer/unavailable', /^cannot reach "servers.example.org:1": its name has no address$/),
  );
  const clock = drivenClock(now);
  const never = connectTls({
    host: 'servers.example.org',
    port: 1,
    lookup: () => new Promise(() => {}),
    trustDomain,
    expect: serverId(trustDomain),
    bundle: () => [],
    clock,
  });
  t.after(() => never.close());
  const failed = assert.rejects(call(never), fault('peer/unavailable', /its name was not looked up in 20 seconds$/));
  await settle();
  await clock.advance(20_000);
  await failed;
});

/** A port on 127.0.0.2 whose listener stands still with a full queue: TCP to it is not answered, and nothing is refused. */
async function unanswered(t: TestContext): Promise<number> {
  const script = `const server = require('node:net').createServer();
    server.listen(0, '127.0.0.2', 1, () => {
      require('node:fs').writeSync(1, server.address().port + '\\n');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => void child.kill('SIGKILL'));
  const [line] = await once(child.stdout, 'data');
  const port = Number(String(line));
  let accepted = 0;
  for (let i = 0; i < 6; i++) {
    const filler = connect(port, '127.0.0.2', () => {
      accepted += 1;
    });
    filler.on('error', () => {});
    t.after(() => void filler.destroy());
  }
  // A queue of one holds two.
  await until(() => accepted >= 2);
  return port;
}

test(
  'an address that TCP does not answer for five seconds is left for the next; the last has twenty',
  limit,
  async (t) => {
    const port = await unanswered(t);
    const server = await serve(t, '127.0.0.3', { port });
    const { channel, clock } = channelTo(t, port, ['127.0.0.2', '127.0.0.3']);
    const called = call(channel);
    await settle();
    await clock.advance(4999);
    assert.equal(server.calls.length, 0);
    assert.equal(channel.isWaiting, false, 'nobody has accepted it');
    await clock.advance(1);
    await called;
    assert.equal(server.calls.length, 1);

    const alone = channelTo(t, port, ['127.0.0.2']);
    const failed = assert.rejects(
      call(alone.channel),
      fault('peer/unavailable', /: no connection was made in 20 seconds$/),
    );
    await settle();
    await alone.clock.advance(20_000);
    await failed;
  },
);

/** Accepts and closes, and counts. */
async function closing(t: TestContext) {
  const seen = { connections: 0 };
  const server = createServer((socket) => {
    seen.connections += 1;
    socket.on('error', () => {});
    socket.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { seen, port: (server.address() as AddressInfo).port };
}

test(
  'after a failure calls fail at once and no connection is made, until a pause is over that grows to 5 seconds',
  limit,
  async (t) => {
    const { seen, port } = await closing(t);
    const { channel, clock } = channelTo(t, port, ['127.0.0.1'], () => 0.5);
    const refused = () => assert.rejects(call(channel), fault('peer/unavailable', /^cannot reach/));
    await refused();
    assert.equal(seen.connections, 1);
    let made = 1;
    for (const pause of [250, 400, 640, 1024, 1638, 2621, 4194, 5000, 5000]) {
      await refused();
      await clock.advance(pause - 1);
      await refused();
      assert.equal(seen.connections, made, `before ${pause} ms`);
      // Somebody has asked meanwhile: it is tried without waiting for the next who does.
      await clock.advance(1);
      made += 1;
      await until(() => seen.connections === made && clock.waiting === 1);
      assert.equal(seen.connections, made, `after ${pause} ms`);
    }
  },
);

test('where nobody asked during the pause, the next call makes the connection and waits for it', limit, async (t) => {
  const { seen, port } = await closing(t);
  const { channel, clock } = channelTo(t, port, ['127.0.0.1'], () => 0.5);
  await assert.rejects(call(channel));
  await clock.advance(10 * minute);
  assert.equal(seen.connections, 1);
  const server = await serve(t, '127.0.0.2', { port });
  const moved = channelTo(t, port, ['127.0.0.2']);
  await call(moved.channel);
  assert.equal(server.calls.length, 1);
  await assert.rejects(call(channel));
  assert.equal(seen.connections, 2);
});

test('reconnect forgets the pause, and fails who waits', limit, async (t) => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => {});
    sockets.push(socket.resume());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { channel } = channelTo(t, (server.address() as AddressInfo).port, ['127.0.0.1']);
  const waits = assert.rejects(call(channel), fault('peer/unavailable', /another connection was wanted/));
  await until(() => sockets.length === 1);
  channel.reconnect();
  await waits;
  const closes = assert.rejects(call(channel), fault('peer/unavailable', /closed before there was a connection/));
  await until(() => sockets.length === 2);
  sockets[1]!.destroy();
  channel.close();
  await closes;
  await assert.rejects(call(channel), fault('peer/unavailable', /is closed$/));
});

test('a call whose deadline or signal ends it while there is no connection waits no longer', limit, async (t) => {
  const server = createServer((socket) => void socket.on('error', () => {}).resume());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { channel } = channelTo(t, (server.address() as AddressInfo).port, ['127.0.0.1']);
  await assert.rejects(
    channel.unary(agents, 'CountAgents', {}, { deadlineMs: 20 }),
    (error) =>
      error instanceof Fault &&
      error.status === Status.DEADLINE_EXCEEDED &&
      error.message === 'no connection was made within 0.02 seconds',
  );
  const abort = new AbortController();
  const called = channel.bidi(agents, 'AttestAgent', { signal: abort.signal });
  const sent = called.send({});
  const next = called.responses.next();
  abort.abort(new Error('enough'));
  await assert.rejects(next, /enough/);
  await assert.rejects(sent, fault('call/cancelled'));
});

test(
  'a connection takes no new calls once the certificate of its server has ended; what is on it goes on',
  limit,
  async (t) => {
    const server = await serve(t, '127.0.0.1', { svid: shown(ca, { notAfter: now + 5 * minute }) });
    const { channel, clock } = channelTo(t, server.port, ['127.0.0.1']);
    await call(channel);
    const talk = channel.bidi(agents, 'AttestAgent');
    await talk.send({});
    await talk.responses.next();
    await clock.advance(4.9 * minute);
    await call(channel);
    assert.equal(server.calls[0]!.caller, server.calls[1]!.caller);
    await clock.advance(0.2 * minute);
    // By now nobody would be believed who shows it.
    await assert.rejects(call(channel), fault('peer/untrusted', /./));
    await talk.send({});
    assert.equal((await talk.responses.next()).done, false);
    talk.end();
    assert.equal((await talk.responses.next()).done, true);
  },
);

test('nothing waits for the end of a connection that is left, or broken', limit, async (t) => {
  const server = await serve(t, '127.0.0.1');
  const left = channelTo(t, server.port, ['127.0.0.1']);
  await call(left.channel);
  assert.equal(left.clock.waiting, 1, 'the end of the certificate');
  left.channel.reconnect();
  assert.equal(left.clock.waiting, 0);
  await call(left.channel);
  await server.serving.close(0);
  await until(() => left.clock.waiting === 0);
  assert.equal(left.clock.waiting, 0);
});

test('calls that come while a connection is made wait for it, and share it', limit, async (t) => {
  const server = await serve(t, '127.0.0.1');
  const { channel, asked } = channelTo(t, server.port, ['127.0.0.1']);
  await Promise.all(Array.from({ length: 30 }, () => call(channel)));
  assert.equal(server.calls.length, 30);
  assert.equal(new Set(server.calls.map(({ caller }) => caller)).size, 1);
  assert.equal(asked.length, 1);
});
