/**
 * Calls that are carried on HTTP/2 itself. Every case is also sent with a content type that is left to grpc-js, and the
 * caller has to see the same of both: status, headers, trailers and messages.
 */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { connect, type IncomingHttpHeaders } from 'node:http2';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Fault } from '../../../src/errors.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { type Call, type Limits, serveUnix } from '../../../src/rpc/serve.ts';

const request = messageCodec('ValidateJWTSVIDRequest');
const response = messageCodec('ValidateJWTSVIDResponse');
const message = (audience: string): Buffer => framed(request.encode({ audience, svid: 'token' }));
const long = message('x'.repeat(600));

function framed(bytes: Buffer, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([prefix, bytes]);
}

interface Answer {
  readonly headers: IncomingHttpHeaders;
  readonly trailers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly rst: number;
}

async function served(more: Partial<Limits> = {}) {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const outcomes: (string | undefined)[] = [];
  const calls: Call[] = [];
  const { promise: begun, resolve: begin } = Promise.withResolvers<Call>();
  const serving = await serveUnix({
    path,
    mode: 0o600,
    limits: { messageBytes: 1_000, ...more },
    onDone: (_call, fault) => outcomes.push(fault?.code),
    services: [
      {
        name: 'SpiffeWorkloadAPI',
        methods: {
          ValidateJWTSVID(asked: { audience: string }, call) {
            calls.push(call);
            begin(call);
            if (asked.audience === 'wait') return new Promise((resolve) => void call.onBroken(() => resolve({})));
            if (asked.audience === 'refuse')
              throw new Fault('caller/denied', 'no, 100 % not: é', { reason: 'AGENT_BANNED', hint: 'Ask.' });
            return { spiffe_id: `spiffe://example.org/${asked.audience}` };
          },
          async FetchX509SVID(_asked: object, call, send) {
            calls.push(call);
            if (call.metadata('count') === 'none') return;
            await send({ svids: [{ spiffe_id: 'spiffe://example.org/one' }] });
            await send({ svids: [{ spiffe_id: 'spiffe://example.org/two' }] });
            if (call.metadata('count') === 'fail') throw new Fault('peer/unavailable', 'no more');
          },
        },
      },
    ],
  });
  const session = connect('http://localhost', { createConnection: () => createConnection(path) });
  const ask = (
    type: string,
    method: string,
    headers: Record<string, string>,
    parts: readonly Buffer[],
    isOpen = false,
  ): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const stream = session.request({
        ':method': 'POST',
        ':path': `/SpiffeWorkloadAPI/${method}`,
        'content-type': type,
        te: 'trailers',
        ...headers,
      });
      const body: Buffer[] = [];
      let got: IncomingHttpHeaders = {};
      let trailers: IncomingHttpHeaders = {};
      stream.on('response', (value) => (got = value));
      stream.on('trailers', (value) => (trailers = value));
      stream.on('data', (bytes: Buffer) => body.push(bytes));
      stream.on('end', () => stream.close());
      stream.on('error', reject);
      stream.on('close', () => resolve({ headers: got, trailers, body: Buffer.concat(body), rst: stream.rstCode }));
      // Each after the one before has gone: written at once, they would travel as one.
      void (async () => {
        for (const part of parts) await new Promise<void>((done) => stream.write(part, () => done()));
        if (!isOpen) stream.end();
      })();
    });
  return {
    outcomes,
    calls,
    begun,
    ask,
    session,
    async [Symbol.asyncDispose]() {
      session.destroy();
      await serving.close(0);
    },
  };
}

/** What a caller sees, without the words and the date. */
function seen({ headers, trailers, body }: Answer) {
  const { date, 'grpc-message': _words, ...rest } = headers;
  return {
    headers: { ...rest },
    trailers: { ...trailers, 'grpc-message': undefined },
    isTold: 'grpc-message' in { ...headers, ...trailers },
    hasDate: date !== undefined,
    body: body.toString('hex'),
  };
}

const direct = 'application/grpc';
const library = 'application/grpc;x=y';

const cases: readonly {
  readonly name: string;
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly parts: readonly Buffer[];
  readonly open?: true;
  readonly status: string;
}[] = [
  { name: 'one message', parts: [message('a')], status: '0' },
  { name: 'in pieces of one byte', parts: [...message('a')].map((byte) => Buffer.of(byte)), status: '0' },
  { name: 'a long one in pieces of one byte', parts: [...long].map((byte) => Buffer.of(byte)), status: '0' },
  { name: 'the longest message', parts: [message('x'.repeat(990))], status: '0' },
  { name: 'one that is too long', parts: [message('x'.repeat(1_001))], status: '8' },
  { name: 'one that is too long and never sent', parts: [Buffer.from('00ffffffff', 'hex')], open: true, status: '8' },
  { name: 'no message', parts: [], status: '12' },
  { name: 'a piece of a message', parts: [long.subarray(0, 300)], status: '12' },
  { name: 'a piece of a prefix', parts: [long.subarray(0, 3)], status: '12' },
  { name: 'two messages', parts: [message('a'), message('b')], status: '12' },
  { name: 'two messages in one piece', parts: [Buffer.concat([message('a'), message('b')])], status: '12' },
  { name: 'bytes that are no such message', parts: [framed(Buffer.from('ffffff', 'hex'))], status: '13' },
  { name: 'a refusal with its reason', parts: [message('refuse')], status: '7' },
  { name: 'a deadline', headers: { 'grpc-timeout': '100000u' }, parts: [message('wait')], status: '4' },
  {
    name: 'a deadline before the request is there',
    headers: { 'grpc-timeout': '50m' },
    parts: [],
    open: true,
    status: '4',
  },
  { name: 'a far deadline', headers: { 'grpc-timeout': '99S' }, parts: [message('a')], status: '0' },
  { name: 'a stream of two', method: 'FetchX509SVID', parts: [framed(Buffer.alloc(0))], status: '0' },
  {
    name: 'a stream of none',
    method: 'FetchX509SVID',
    headers: { count: 'none' },
    parts: [framed(Buffer.alloc(0))],
    status: '0',
  },
  {
    name: 'a stream that fails',
    method: 'FetchX509SVID',
    headers: { count: 'fail' },
    parts: [framed(Buffer.alloc(0))],
    status: '14',
  },
];

for (const { name, method = 'ValidateJWTSVID', headers = {}, parts, open, status } of cases) {
  test(`${name}: as grpc-js answers it, and one outcome is told`, async () => {
    await using rpc = await served();
    const ours = await rpc.ask(direct, method, headers, parts, open);
    const told = [...rpc.outcomes];
    const theirs = await rpc.ask(library, method, headers, parts, open);
    assert.deepEqual(seen(ours), seen(theirs));
    assert.equal(ours.headers['grpc-status'] ?? ours.trailers['grpc-status'], status);
    assert.equal(told.length, 1);
    assert.equal(told[0] === undefined, status === '0');
  });
}

test('what is not plain still works: gzip is read, an unknown content type and an odd timeout are refused', async () => {
  await using rpc = await served();
  const gzip = framed(gzipSync(request.encode({ audience: 'zip', svid: 'token' })), 1);
  const answer = await rpc.ask(direct, 'ValidateJWTSVID', { 'grpc-encoding': 'gzip' }, [gzip]);
  assert.equal(response.decode(answer.body.subarray(5)).spiffe_id, 'spiffe://example.org/zip');
  const text = await rpc.ask('text/plain', 'ValidateJWTSVID', {}, [message('a')]);
  assert.equal(text.headers[':status'], 415);
  const odd = await rpc.ask(direct, 'ValidateJWTSVID', { 'grpc-timeout': 'soon' }, [message('a')]);
  assert.equal(odd.headers['grpc-status'], '13');
});

test('a message that is marked compressed where nothing says how is refused', async () => {
  await using rpc = await served();
  const marked = framed(request.encode({ audience: 'a', svid: 'token' }), 1);
  const { headers } = await rpc.ask(direct, 'ValidateJWTSVID', {}, [marked]);
  assert.equal(headers['grpc-status'], '13');
  assert.deepEqual(rpc.outcomes, ['input/invalid']);
});

test('a header has one value for a handler whatever the case of its name, and a binary one none', async () => {
  await using rpc = await served();
  await rpc.ask(direct, 'ValidateJWTSVID', { 'x-a': 'b, c', 'x-b-bin': 'YQ==' }, [message('a')]);
  const [call] = rpc.calls as [Call];
  assert.deepEqual([call.metadata('X-A'), call.metadata('x-b-bin'), call.metadata('x-c')], ['b', undefined, undefined]);
});

test('a caller who resets its stream breaks the call, once', async () => {
  await using rpc = await served();
  const stream = rpc.session.request({
    ':method': 'POST',
    ':path': '/SpiffeWorkloadAPI/ValidateJWTSVID',
    'content-type': direct,
  });
  stream.end(message('wait'));
  const call = await rpc.begun;
  const broken = new Promise<void>((resolve) => void call.onBroken(resolve));
  assert.equal(call.signal.aborted, false);
  stream.close(8);
  await broken;
  assert.equal(call.broken?.code, 'call/cancelled');
  assert.equal(call.signal.aborted, true);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(rpc.outcomes, ['call/cancelled']);
});

test('a connection is idle when it has no call, whoever carries them', async () => {
  await using rpc = await served({ idleMs: 100 });
  const closed = new Promise((resolve) => rpc.session.once('close', resolve));
  const stream = rpc.session.request({
    ':method': 'POST',
    ':path': '/SpiffeWorkloadAPI/ValidateJWTSVID',
    'content-type': direct,
  });
  stream.end(message('wait'));
  await rpc.begun;
  // Longer than an idle connection lives: this one is not idle.
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(rpc.session.closed, false);
  stream.close(8);
  await closed;
});

test('requests that are not answered hold so many bytes together: more are refused until there is room again', async () => {
  // Room for two of about 600 bytes.
  await using rpc = await served({ requestBytes: 1_500 });
  const open = () =>
    rpc.session.request({
      ':method': 'POST',
      ':path': '/SpiffeWorkloadAPI/ValidateJWTSVID',
      'content-type': direct,
    });
  const halves = [open(), open()];
  for (const stream of halves) {
    stream.on('error', () => {});
    await new Promise<void>((resolve) => stream.write(long.subarray(0, 590), () => resolve()));
  }
  const ask = () => rpc.ask(direct, 'ValidateJWTSVID', {}, [long]);
  const statusOf = ({ headers, trailers }: Answer) => headers['grpc-status'] ?? trailers['grpc-status'];
  // What was written is there when what was written after it is answered.
  const refused = await ask();
  assert.equal(statusOf(refused), '8');
  assert.match(decodeURIComponent(String(refused.headers['grpc-message'])), /^too much is asked at a time/);
  assert.ok(refused.headers['grpc-status-details-bin'] !== undefined, 'it says when to come again');
  assert.equal(statusOf(await rpc.ask(direct, 'ValidateJWTSVID', {}, [message('small')])), '0');

  for (const stream of halves) stream.close(8);
  // The refused, the answered and the two that went away have all given back what they held.
  assert.equal(statusOf(await ask()), '0');
  assert.equal(statusOf(await rpc.ask(direct, 'ValidateJWTSVID', {}, [long])), '0');
  assert.equal(rpc.calls.length, 3);
});
