/** Connections that are asked for a sign of life and closed when nobody needs them, with real ends and a driven clock. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, createServer, type ServerHttp2Session } from 'node:http2';
import { type AddressInfo, connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { attend } from '../../../src/rpc/attend.ts';
import { never } from '../../../src/rpc/limits.ts';
import { drivenClock, until } from '../../support/clock.ts';

const minute = 60_000;

async function attended(t: TestContext, limits: { keepaliveMs: number; idleMs: number }, isDeaf = false) {
  const clock = drivenClock();
  const server = createServer();
  server.on('stream', (stream) => opened(stream));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const arrived = once(server, 'session') as Promise<[ServerHttp2Session]>;
  const { port } = server.address() as AddressInfo;
  let client: ReturnType<typeof connectHttp2> | undefined;
  if (isDeaf) {
    // Greets, and never answers again.
    const socket = connect(port, '127.0.0.1', () =>
      socket.write(
        Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]),
      ),
    );
    socket.on('error', () => {});
    t.after(() => socket.destroy());
  } else {
    client = connectHttp2(`http://127.0.0.1:${port}`);
    client.on('error', () => {});
    t.after(() => client?.destroy());
  }
  const [session] = await arrived;
  t.after(() => session.destroy());
  let answers = 0;
  const ping = session.ping.bind(session) as (told: (...answer: [Error | null, number, Buffer]) => void) => boolean;
  session.ping = ((told: Parameters<typeof ping>[0]) =>
    ping((...answer) => {
      told(...answer);
      answers += 1;
    })) as typeof session.ping;
  const opened = attend(session, limits, clock);
  return { clock, session, client, answers: () => answers };
}

test('a connection whose other end answers pings stays', async (t) => {
  const { clock, session, answers } = await attended(t, { keepaliveMs: minute, idleMs: never });
  for (let asked = 1; asked <= 3; asked++) {
    await clock.advance(minute);
    await until(() => answers() === asked);
    assert.equal(answers(), asked);
  }
  assert.equal(session.destroyed, false);
});

test('one whose other end is silent for a third of the time is broken off', async (t) => {
  const { clock, session } = await attended(t, { keepaliveMs: minute, idleMs: never }, true);
  await clock.advance(minute);
  await clock.advance(minute / 3 - 1);
  assert.equal(session.destroyed, false);
  await clock.advance(1);
  assert.equal(session.destroyed, true);
});

test('one without streams is closed, and one with a stream when that has been over for so long', async (t) => {
  const { clock, session, client } = await attended(t, { keepaliveMs: never, idleMs: minute });
  await clock.advance(minute - 1);
  const stream = client!.request({ ':path': '/' });
  stream.on('error', () => {});
  const [served] = await once(session, 'stream');
  await clock.advance(10 * minute);
  assert.equal(session.closed, false);
  stream.close(8);
  await once(served, 'close');
  await clock.advance(minute - 1);
  assert.equal(session.closed, false);
  await clock.advance(1);
  assert.equal(session.closed, true);
});

test('nothing is asked of a connection that may stay for ever, nor after its end', async (t) => {
  const { clock } = await attended(t, { keepaliveMs: never, idleMs: never });
  assert.equal(clock.waiting, 0);
  const other = await attended(t, { keepaliveMs: minute, idleMs: minute });
  other.session.destroy();
  await once(other.session, 'close');
  assert.equal(other.clock.waiting, 0);
});
