/** Clients that ask too much, too often, or do not listen: each is bounded, told of once, and no other caller notices. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Fault } from '../../../src/errors.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { type Call, type Service, serveUnix } from '../../../src/rpc/serve.ts';
import { settle } from '../../support/clock.ts';
import { id } from '../support/agent-rig.ts';
import { accept, openStream, read, reject, type SdsRig, sds, sdsRig } from '../support/sds-rig.ts';

const minute = 60_000;
const request = messageCodec('envoy.service.discovery.v3.DiscoveryRequest');

async function ready(entries: readonly string[] = ['a']): Promise<SdsRig> {
  const rig = await sdsRig();
  for (const entry of entries) rig.server.put({ id: entry });
  await rig.start();
  return rig;
}

/** The service on a real socket, with what each call came to and how many answers are being sent. */
async function onSocket(rig: SdsRig) {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const outcomes: (Fault | undefined)[] = [];
  const sending = { begun: 0, done: 0 };
  const methods = Object.fromEntries(
    Object.entries(rig.service.methods).map(([name, method]) => [
      name,
      (input: unknown, call: Call, send: (message: object) => Promise<void>) =>
        method(input, call, async (message) => {
          sending.begun++;
          await send(message);
          sending.done++;
        }),
    ]),
  );
  const service: Service = { name: rig.service.name, methods };
  const onDone = (_call: Call, fault: Fault | undefined): void => {
    outcomes.push(fault);
  };
  const serving = await serveUnix({ path, mode: 0o600, services: [service], onDone });
  return {
    path,
    outcomes,
    sending,
    async [Symbol.asyncDispose]() {
      await serving.close(0);
      rig.stop();
    },
  };
}

const frame = (message: object): Buffer => {
  const bytes = request.encode(message);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};

/** A client that opens StreamSecrets and leaves all that comes unread, with room for `window` bytes of it. */
function deafClient(path: string, window: number) {
  const socket = connect(path);
  const session = connectHttp2('http://localhost', {
    createConnection: () => socket,
    maxSessionMemory: 1_000,
    settings: { initialWindowSize: window },
  });
  session.on('error', () => {});
  const stream: ClientHttp2Stream = session.request(
    { ':method': 'POST', ':path': `/${sds}/StreamSecrets`, 'content-type': 'application/grpc', te: 'trailers' },
    { endStream: false },
  );
  stream.on('error', () => {});
  return { socket, session, stream };
}

test('a storm of rejections is read slowly, logged twice, and answered with nothing', async () => {
  const rig = await ready();
  const stream = openStream(rig.envoy(), 'StreamSecrets', rig);
  await stream.send({ resource_names: ['default'] });
  const answer = await stream.next();
  for (let sent = 0; sent < 10_000; sent++) await stream.send(reject(answer, `${sent}`));
  assert.ok(await stream.isSilent());
  assert.deepEqual(
    rig.lines.map(({ event, uid }) => [event, uid]),
    [
      ['SDS client rejected its secrets', 1000],
      ['SDS client held back: it sends requests without end', 1000],
    ],
  );
  const neighbour = openStream(rig.envoy(), 'StreamSecrets', rig);
  await neighbour.send({ resource_names: ['default'] });
  assert.deepEqual((await neighbour.next()).names, ['default'], 'without the clock moving');
  await rig.clock.advance(31 * minute);
  assert.deepEqual((await stream.next()).names, ['default'], 'and a renewed SVID still comes');
  await rig.clock.advance(10 * minute);
  assert.equal(rig.lines.length, 2);
  rig.stop();
});

test('a storm of other names each time is answered no faster than it is read', async () => {
  const rig = await ready();
  const stream = openStream(rig.envoy(), 'StreamSecrets', rig);
  for (let sent = 0; sent < 1_000; sent++) await stream.send({ resource_names: ['default', `${sent}`] });
  const count = async (ms: number): Promise<number> => {
    await rig.clock.advance(ms);
    let answers = 0;
    while (!(await stream.isSilent())) {
      await stream.next();
      answers++;
    }
    return answers;
  };
  const soon = await count(0);
  assert.ok(soon <= 200, `${soon} at once`);
  const second = await count(1_000);
  assert.ok(second <= 50, `${second} in a second`);
  assert.ok(rig.lines.length <= 21, 'a user gets only so many lines');
  rig.stop();
});

test('a thousand names are answered whole, in one answer and with one line for those that stand for nothing', async () => {
  const entries = Array.from({ length: 400 }, (_, at) => `e${at}`);
  const rig = await ready(entries);
  const known = entries.map((entry) => id(`/${entry}`));
  const unknown = Array.from({ length: 600 }, (_, at) => `nobody-${at}`);
  for (const method of ['StreamSecrets', 'DeltaSecrets'] as const) {
    const stream = openStream(rig.envoy(), method, rig);
    const names = [...unknown, ...known];
    await stream.send({ resource_names: names, resource_names_subscribe: names });
    const answer = await stream.next();
    assert.deepEqual(answer.names, known);
    if (method === 'DeltaSecrets') assert.deepEqual(answer.removed_resources, unknown);
    else await stream.send(accept(answer, names));
    assert.ok(await stream.isSilent());
  }
  assert.equal(rig.lines.length, 1);
  assert.equal(rig.lines[0].count, 600);
  assert.equal(rig.lines[0].names.length, 20);
  rig.stop();
});

for (const [what, method, requests] of [
  ['in one request', 'StreamSecrets', [['resource_names', 0, 1_001]]],
  ['in one request', 'DeltaSecrets', [['resource_names_subscribe', 0, 1_001]]],
  [
    'one after the other',
    'DeltaSecrets',
    [
      ['resource_names_subscribe', 0, 600],
      ['resource_names_subscribe', 600, 1_001],
    ],
  ],
] as const) {
  test(`${method}: more than a thousand names ${what} end the stream with RESOURCE_EXHAUSTED`, async () => {
    const rig = await ready();
    const stream = openStream(rig.envoy(), method, rig);
    for (const [field, from, to] of requests) {
      await stream.send({ [field]: Array.from({ length: to - from }, (_, at) => `n${from + at}`) });
    }
    const end = async (): Promise<unknown> => {
      for (;;) await stream.next();
    };
    await assert.rejects(end(), (fault: Fault) => fault.status === 8 && /at most 1000 may be/.test(fault.message));
    rig.stop();
  });
}

test('a name too long to be any is not kept', async () => {
  const rig = await ready();
  const stream = openStream(rig.envoy(), 'DeltaSecrets', rig);
  await stream.send({ resource_names_subscribe: ['x'.repeat(100_000), 'default'] });
  const answer = await stream.next();
  assert.deepEqual([answer.names, answer.removed_resources], [['default'], []]);
  assert.ok(rig.texts.join().length < 2_000);
  rig.stop();
});

test('a request of 5 MB is refused with RESOURCE_EXHAUSTED, once, and another stream of the same client goes on', async () => {
  const rig = await ready();
  await using served = await onSocket(rig);
  const channel = connectUnix(served.path);
  const good = channel.bidi(sds, 'StreamSecrets');
  await good.send({ resource_names: ['default'] });
  const answers = good.responses[Symbol.asyncIterator]();
  const first = read((await answers.next()).value);
  const names = Array.from({ length: 5_000 }, (_, at) => `${at}`.padEnd(1_000, 'x'));
  for (const method of ['StreamSecrets', 'DeltaSecrets'] as const) {
    const stream = channel.bidi(sds, method);
    void stream.send({ resource_names: names, resource_names_subscribe: names }).catch(() => {});
    await assert.rejects(stream.responses[Symbol.asyncIterator]().next(), (fault: Fault) => fault.status === 8);
  }
  await assert.rejects(
    channel.unary(sds, 'FetchSecrets', { resource_names: names }),
    (fault: Fault) => fault.status === 8,
  );
  await good.send(accept(first, ['default', 'ROOTCA']));
  assert.deepEqual(read((await answers.next()).value).names, ['default', 'ROOTCA']);
  assert.deepEqual(
    served.outcomes.map((fault) => [fault?.code, fault?.message]),
    [1, 2, 3].map(() => ['limit/exceeded', 'Received message larger than max (5015000 vs 4194304)']),
  );
  channel.close();
});

test('metadata nested without end is refused, and the next call is answered', async () => {
  const rig = await ready();
  await using served = await onSocket(rig);
  const part = (number: number, bytes: Buffer): Buffer => {
    const head = [(number << 3) | 2];
    for (let left = bytes.length; ; left >>= 7) {
      head.push(left > 127 ? (left & 127) | 128 : left);
      if (left <= 127) break;
    }
    return Buffer.concat([Buffer.from(head), bytes]);
  };
  let list: Buffer = Buffer.alloc(0);
  for (let depth = 0; depth < 5_000; depth++) list = part(6, part(1, list));
  const node = part(2, part(3, part(1, Buffer.concat([part(1, Buffer.from('a')), part(2, list)]))));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(node.length, 1);
  const { session, stream } = deafClient(served.path, 65_535);
  stream.resume();
  const response = once(stream, 'response');
  stream.end(Buffer.concat([head, node]));
  assert.equal((await response)[0]['grpc-status'], '13');
  assert.deepEqual(
    served.outcomes.map((fault) => fault?.code),
    ['input/invalid'],
  );
  session.destroy();
  const channel = connectUnix(served.path);
  const answer = read(await channel.unary(sds, 'FetchSecrets', { resource_names: ['default'] }));
  assert.deepEqual(answer.names, ['default']);
  channel.close();
});

test('a stream that is never read costs one answer, however much changes, and is logged once; others get every change', async () => {
  const rig = await ready();
  await using served = await onSocket(rig);
  const deaf = deafClient(served.path, 100);
  deaf.stream.write(frame({ resource_names: ['default', 'ALL'] }));
  await once(deaf.stream, 'response');
  await settle(20);
  assert.deepEqual(served.sending, { begun: 1, done: 0 });
  const neighbour = openStream(rig.envoy(), 'StreamSecrets', rig);
  await neighbour.send({ resource_names: ['default'] });
  let last = await neighbour.next();
  for (let round = 0; round < 30; round++) {
    await rig.clock.advance(31 * minute);
    const next = await neighbour.next();
    assert.notEqual(next.version_info, last.version_info);
    last = next;
  }
  assert.deepEqual(served.sending, { begun: 1, done: 0 });
  assert.deepEqual(
    rig.lines.map(({ event }) => event),
    ['SDS client does not read its answer'],
  );
  deaf.session.destroy();
  await once(deaf.socket, 'close');
  await settle(20);
  assert.deepEqual(
    served.outcomes.map((fault) => fault?.code),
    ['call/cancelled'],
  );
});

test('a stream that is never read and goes on writing is held back by its own transport', async () => {
  const rig = await ready();
  await using served = await onSocket(rig);
  const deaf = deafClient(served.path, 100);
  const more = frame({
    resource_names: ['default', ...Array.from({ length: 900 }, (_, at) => `${at}`.padEnd(100, 'x'))],
  });
  for (let sent = 0; sent < 200; sent++) deaf.stream.write(more);
  await once(deaf.stream, 'response');
  await settle(200);
  const taken = deaf.socket.bytesWritten;
  assert.ok(taken < 2_000_000, `${taken} of ${200 * more.length} bytes were taken`);
  assert.ok(served.sending.begun <= 1);
  deaf.session.destroy();
});

test('WE-16 processes without an identity that come again and again leave nothing behind', async () => {
  const rig = await ready();
  const { waiting } = rig.clock;
  for (let round = 0; round < 100; round++) {
    const stream = openStream(rig.envoy(`unix:uid:${5_000 + round}`), 'StreamSecrets', rig);
    await stream.send({ resource_names: ['default'] });
    const refused = assert.rejects(stream.next(), (fault: Fault) => fault.status === 7);
    await rig.clock.advance(1_000);
    await refused;
  }
  assert.ok(rig.clock.waiting <= waiting + 1, `${rig.clock.waiting} timers, ${waiting} before`);
  assert.deepEqual(rig.lines, []);
  rig.stop();
});
