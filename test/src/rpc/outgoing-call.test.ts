/** Calls of ours against servers that answer whatever a test wants, frame by frame, on real sockets. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import {
  constants,
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { Fault, Status, type StatusCode } from '../../../src/errors.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import type { CurrentConnection } from '../../../src/rpc/current-connection.ts';
import { encoded } from '../../../src/rpc/encoded.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { OutgoingCall } from '../../../src/rpc/outgoing-call.ts';
import { requestHeaders } from '../../../src/rpc/request-headers.ts';
import { drivenClock, until } from '../../support/clock.ts';

const agents = 'spire.api.server.agent.v1.Agent';
const workload = 'SpiffeWorkloadAPI';
const limit = { timeout: 60_000 };

const count = (number: number): Buffer =>
  encoded(messageCodec('spire.api.server.agent.v1.CountAgentsResponse').encode({ count: number })).frame;
const challenge = (text: string): Buffer =>
  encoded(messageCodec('spire.api.server.agent.v1.AttestAgentResponse').encode({ challenge: Buffer.from(text) })).frame;
const bundles = (bytes: number): Buffer =>
  encoded(messageCodec('X509BundlesResponse').encode({ crl: [Buffer.alloc(bytes)] })).frame;

type Answer = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;

/** Begins an answer as gRPC servers do; the trailers follow at its end. */
function respond(stream: ServerHttp2Stream, trailers: Record<string, string | number> = { 'grpc-status': 0 }): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.once('wantTrailers', () => stream.sendTrailers(trailers));
}
const only = (stream: ServerHttp2Stream, trailers: Record<string, string | number>): void =>
  stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...trailers }, { endStream: true });

/** Each stream is answered by the next of `answers`, the last of them over and over. */
async function rig(t: TestContext, ...answers: Answer[]) {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const sessions: ServerHttp2Session[] = [];
  const streams: { stream: ServerHttp2Stream; headers: IncomingHttpHeaders }[] = [];
  const server = createServer();
  server.on('session', (session) => {
    session.on('error', () => {});
    sessions.push(session);
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    streams.push({ stream, headers });
    (answers[streams.length - 1] ?? answers.at(-1))!(stream, headers);
  });
  server.listen(path);
  await once(server, 'listening');
  const channel = connectUnix(path);
  t.after(() => {
    channel.close();
    for (const session of sessions) session.destroy();
    server.close();
  });
  const call = (options = {}): Promise<unknown> => channel.unary(agents, 'CountAgents', {}, options);
  return { channel, sessions, streams, call };
}

async function faultOf(promise: Promise<unknown>): Promise<Fault> {
  const error = await promise.then(
    (value) => assert.fail(`it worked: ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  assert.ok(error instanceof Fault, String(error));
  return error;
}

test('a request has the headers that gRPC asks for, its metadata, and one message', limit, async (t) => {
  const bodies: Buffer[] = [];
  const { call, streams } = await rig(t, (stream) => {
    stream.on('data', (bytes: Buffer) => bodies.push(bytes));
    stream.on('end', () => {
      respond(stream);
      stream.end(count(3));
    });
  });
  const metadata = { 'x-one': 'a b', 'x-two-bin': 'ü' };
  assert.deepEqual(await call({ deadlineMs: 30_000, metadata }), { count: 3 });
  const { headers } = streams[0]!;
  const { 'grpc-timeout': left, 'user-agent': agent, ...rest } = headers;
  assert.deepEqual(Object.fromEntries(Object.entries(rest)), {
    ':method': 'POST',
    ':scheme': 'http',
    ':authority': 'localhost',
    ':path': `/${agents}/CountAgents`,
    te: 'trailers',
    'content-type': 'application/grpc',
    'x-one': 'a b',
    'x-two-bin': Buffer.from('ü').toString('base64'),
  });
  assert.match(left as string, /^(30000|2\d{4})m$/);
  assert.match(agent as string, /^grpc-mutual\/\d/);
  const codec = messageCodec('spire.api.server.agent.v1.CountAgentsRequest');
  assert.deepEqual(Buffer.concat(bodies), encoded(codec.encode({})).frame);
  await call();
  assert.equal(streams[1]!.headers['grpc-timeout'], undefined);
});

test('a timeout has at most eight digits and a unit, and is never nothing', () => {
  for (const [ms, text] of [
    [-5, '1m'],
    [0.2, '1m'],
    [1500.5, '1501m'],
    [99_999_999, '99999999m'],
    [100_000_000, '100000S'],
    [99_999_999_000, '99999999S'],
    [1e11, '27778H'],
    [1e300, '99999999H'],
  ] as const)
    assert.equal(requestHeaders({ scheme: 'http', authority: 'a' }, '/a/b', ms, undefined)['grpc-timeout'], text);
});

test('metadata that cannot travel is refused by its name, and its value is not told', limit, async (t) => {
  const { call, streams } = await rig(t, (stream) => only(stream, { 'grpc-status': 0 }));
  for (const metadata of [
    { 'X-A': 'b' },
    { 'x-a': 'secret\n' },
    { 'x-a': 'sücret' },
    { 'grpc-timeout': '1S' },
    { '': 'x' },
  ]) {
    const fault = await faultOf(call({ metadata }));
    assert.equal(fault.code, 'input/invalid');
    assert.doesNotMatch(fault.message, /s.cret/);
  }
  assert.equal(streams.length, 0);
});

test('a message in many DATA frames, and many messages in one, arrive in order', limit, async (t) => {
  const { call, channel } = await rig(
    t,
    (stream) => {
      respond(stream);
      const bytes = count(300);
      void (async () => {
        for (const byte of bytes) {
          stream.write(Buffer.from([byte]));
          await new Promise(setImmediate);
        }
        stream.end();
      })();
    },
    (stream) => {
      respond(stream);
      stream.end(Buffer.concat(['a', 'b', 'c', 'd'].map(challenge)));
    },
  );
  assert.deepEqual(await call(), { count: 300 });
  const seen: string[] = [];
  for await (const message of channel.bidi(agents, 'AttestAgent').responses) seen.push(message.challenge.toString());
  assert.deepEqual(seen, ['a', 'b', 'c', 'd']);
});

test(
  'a reader that stops half way through what came in one piece still gets all of it, and then the failure',
  limit,
  async (t) => {
    const { channel } = await rig(t, (stream) => {
      respond(stream, { 'grpc-status': 7, 'grpc-message': 'no more' });
      stream.end(Buffer.concat(['a', 'b', 'c'].map(challenge)));
    });
    const { responses } = channel.bidi(agents, 'AttestAgent');
    assert.equal((await responses.next()).value.challenge.toString(), 'a');
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal((await responses.next()).value.challenge.toString(), 'b');
    assert.equal((await responses.next()).value.challenge.toString(), 'c');
    assert.equal((await faultOf(responses.next())).message, 'no more');
  },
);

const page =
  (status: number): Answer =>
  (stream) => {
    stream.respond({ ':status': status, 'content-type': 'text/html' });
    stream.end('<p>a page, and no message</p>');
  };
const reset =
  (code: number): Answer =>
  (stream) => {
    respond(stream);
    stream.write(Buffer.alloc(2));
    setImmediate(() => stream.close(code));
  };
const answer =
  (body: Buffer, trailers: Record<string, string | number> = { 'grpc-status': 0 }): Answer =>
  (stream) => {
    respond(stream, trailers);
    stream.end(body);
  };

const endings: readonly [string, Answer, StatusCode, RegExp][] = [
  [
    'trailers alone',
    (stream) => only(stream, { 'grpc-status': 5, 'grpc-message': 'none here' }),
    Status.NOT_FOUND,
    /^none here$/,
  ],
  [
    'trailers after a message',
    answer(count(1), { 'grpc-status': 9, 'grpc-message': 'no' }),
    Status.FAILED_PRECONDITION,
    /^no$/,
  ],
  ['trailers without a message', (stream) => only(stream, { 'grpc-status': 3 }), Status.INVALID_ARGUMENT, /^$/],
  [
    'a text that was encoded',
    (stream) => only(stream, { 'grpc-status': 3, 'grpc-message': '%C3%BC %25 %23%0A' }),
    Status.INVALID_ARGUMENT,
    /^ü % #\n$/,
  ],
  [
    'a text encoded wrongly',
    (stream) => only(stream, { 'grpc-status': 3, 'grpc-message': '100%, %zz' }),
    Status.INVALID_ARGUMENT,
    /^100%, %zz$/,
  ],
  [
    'a status nobody knows',
    (stream) => only(stream, { 'grpc-status': 99, 'grpc-message': 'm' }),
    Status.UNKNOWN,
    /^m$/,
  ],
  [
    'a status that is no number',
    (stream) => only(stream, { 'grpc-status': '5x', 'grpc-message': 'm' }),
    Status.UNKNOWN,
    /^m$/,
  ],
  ['trailers without a status', answer(count(1), { other: 1 }), Status.UNKNOWN, /without a gRPC status/],
  [
    'no trailers',
    (stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
      stream.end(count(1));
    },
    Status.UNKNOWN,
    /without a gRPC status/,
  ],
  ['headers that are all', (stream) => only(stream, {}), Status.UNKNOWN, /without a gRPC status/],
  ['HTTP 400', page(400), Status.INTERNAL, /HTTP status 400/],
  ['HTTP 401', page(401), Status.UNAUTHENTICATED, /HTTP status 401/],
  ['HTTP 403', page(403), Status.PERMISSION_DENIED, /HTTP status 403/],
  ['HTTP 404', page(404), Status.UNIMPLEMENTED, /HTTP status 404/],
  ['HTTP 429', page(429), Status.UNAVAILABLE, /HTTP status 429/],
  ['HTTP 502', page(502), Status.UNAVAILABLE, /HTTP status 502/],
  ['HTTP 503', page(503), Status.UNAVAILABLE, /HTTP status 503/],
  ['HTTP 504', page(504), Status.UNAVAILABLE, /HTTP status 504/],
  ['HTTP 500', page(500), Status.UNKNOWN, /HTTP status 500/],
  [
    'HTTP 503 with a status',
    (stream) => stream.respond({ ':status': 503, 'grpc-status': 8, 'grpc-message': 'm' }, { endStream: true }),
    Status.RESOURCE_EXHAUSTED,
    /^m$/,
  ],
  ['HTTP 200 and a page', page(200), Status.UNKNOWN, /content-type "text\/html", which is not gRPC/],
  ['RST_STREAM NO_ERROR', reset(0), Status.UNKNOWN, /without a gRPC status/],
  ['RST_STREAM PROTOCOL_ERROR', reset(1), Status.INTERNAL, /HTTP\/2 error 1\b/],
  ['RST_STREAM INTERNAL_ERROR', reset(2), Status.INTERNAL, /HTTP\/2 error 2\b/],
  ['RST_STREAM REFUSED_STREAM after headers', reset(7), Status.UNAVAILABLE, /refused the stream/],
  ['RST_STREAM CANCEL', reset(8), Status.CANCELLED, /cancelled/],
  ['RST_STREAM ENHANCE_YOUR_CALM', reset(11), Status.RESOURCE_EXHAUSTED, /too much to do/],
  ['RST_STREAM INADEQUATE_SECURITY', reset(12), Status.PERMISSION_DENIED, /not secure enough/],
  ['a compressed message', answer(Buffer.from([1, 0, 0, 0, 1, 0])), Status.INTERNAL, /compressed/],
  [
    'a message that is too long',
    answer(Buffer.from([0, 4, 0, 0, 1])),
    Status.RESOURCE_EXHAUSTED,
    /^a message of 67108865 bytes/,
  ],
  ['half a message', answer(count(300).subarray(0, 6)), Status.INTERNAL, /in the middle of a message/],
  ['no message', answer(Buffer.alloc(0)), Status.UNIMPLEMENTED, /with no message/],
  ['two messages', answer(Buffer.concat([count(1), count(2)])), Status.UNIMPLEMENTED, /with more than one message/],
  [
    'bytes that are no message',
    answer(Buffer.from([0, 0, 0, 0, 1, 0xff])),
    Status.INTERNAL,
    /not the message it should be/,
  ],
];
for (const [name, given, status, said] of endings)
  test(
    `a call that is answered with ${name} fails with status ${status}, once, and the next call works`,
    limit,
    async (t) => {
      const { call, streams, sessions } = await rig(t, given, (stream) => {
        respond(stream);
        stream.end(count(4));
      });
      const fault = await faultOf(call());
      assert.equal(fault.status, status, fault.message);
      assert.match(fault.message, said);
      assert.deepEqual(await call(), { count: 4 });
      assert.equal(streams.length, 2);
      assert.equal(sessions.length, 1, 'on the same connection');
    },
  );

test(
  'details say why and when to come again, with and without padding; of several the first counts',
  limit,
  async (t) => {
    const value = messageCodec('google.rpc.RetryInfo').encode({ retry_delay: { seconds: 3 } });
    const reason = messageCodec('spire.api.types.PermissionDeniedDetails').encode({ reason: 'AGENT_BANNED' });
    const any = (type: string, value: Buffer) => ({ type_url: `type.googleapis.com/${type}`, value });
    const bytes = messageCodec('google.rpc.Status').encode({
      code: 7,
      details: [any('spire.api.types.PermissionDeniedDetails', reason), any('google.rpc.RetryInfo', value)],
    });
    const padded = bytes.toString('base64');
    for (const text of [padded, padded.replace(/=+$/, ''), `${padded},AAAA`]) {
      const { call } = await rig(t, (stream) => only(stream, { 'grpc-status': 7, 'grpc-status-details-bin': text }));
      const { status, reason, retryAfterMs } = await faultOf(call());
      assert.deepEqual([status, reason, retryAfterMs], [7, 'AGENT_BANNED', 3000]);
    }
  },
);

test('a deadline that passes cancels the stream; so do a signal and a reader who leaves', limit, async (t) => {
  const codes: number[] = [];
  const { call, channel, streams } = await rig(t, (stream) => {
    respond(stream);
    stream.write(Buffer.alloc(0));
    if (streams.length === 3) stream.write(bundles(1));
    stream.on('close', () => codes.push(stream.rstCode));
  });
  const late = await faultOf(call({ deadlineMs: 50 }));
  assert.deepEqual([late.code, late.message], ['call/late', 'no answer came within 0.05 seconds']);
  await until(() => codes.length === 1);
  const abort = new AbortController();
  const called = call({ signal: abort.signal });
  await until(() => streams.length === 2);
  const reason = new Error('enough');
  abort.abort(reason);
  await assert.rejects(called, reason);
  await until(() => codes.length === 2);
  for await (const _ of channel.stream(workload, 'FetchX509Bundles', {})) break;
  await until(() => codes.length === 3);
  assert.deepEqual(codes, [constants.NGHTTP2_CANCEL, constants.NGHTTP2_CANCEL, constants.NGHTTP2_CANCEL]);
});

test('a signal that is never aborted is let go of when the call is over', limit, async (t) => {
  const { call } = await rig(t, answer(count(1)));
  const { signal } = new AbortController();
  let held = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    held += 1;
    add(...args);
  };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    held -= 1;
    remove(...args);
  };
  await call({ signal });
  assert.equal(held, 0);
});

test('a reader who does not read holds the server back, and gets everything when he does', limit, async (t) => {
  let taken = 0;
  const total = 24;
  const { channel } = await rig(t, (stream) => {
    respond(stream);
    void (async () => {
      for (let i = 0; i < total; i++) {
        await new Promise((resolve) => stream.write(bundles(1 << 20), resolve));
        taken += 1;
      }
      stream.end();
    })();
  });
  const responses = channel.stream(workload, 'FetchX509Bundles', {});
  await responses.next();
  let before = -1;
  // Until nothing moves any more.
  while (before !== taken) {
    before = taken;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(taken <= 6, `${taken} MiB were sent to somebody who reads nothing`);
  let read = 1;
  for await (const _ of responses) read += 1;
  assert.equal(read, total);
});

test('a message is sent once the server has room for it, and no sooner', limit, async (t) => {
  const { channel, streams } = await rig(t, (stream) => {
    stream.pause();
    respond(stream);
    stream.write(Buffer.alloc(0));
  });
  const talk = channel.bidi(agents, 'AttestAgent');
  let sent = 0;
  for (let i = 0; i < 8; i++) void talk.send({ challenge_response: Buffer.alloc(1 << 20) }).then(() => sent++);
  await until(() => streams.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(sent < 2, `${sent} MiB were taken`);
  streams[0]!.stream.resume();
  await until(() => sent === 8);
  assert.equal(sent, 8);
});

test('a stream that the server gives back unread is made once more, with all that was sent on it', limit, async (t) => {
  const bodies: Buffer[] = [];
  const { channel, call, streams } = await rig(
    t,
    (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM),
    answer(count(5)),
    (stream) => {
      stream.resume();
      stream.on('end', () => stream.close(constants.NGHTTP2_REFUSED_STREAM));
    },
    (stream) => {
      stream.on('data', (bytes: Buffer) => bodies.push(bytes));
      stream.on('end', () => {
        respond(stream);
        stream.end(challenge('z'));
      });
    },
    (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM),
  );
  assert.deepEqual(await call(), { count: 5 });
  assert.equal(streams.length, 2);
  const talk = channel.bidi(agents, 'AttestAgent');
  const messages = [{ challenge_response: Buffer.from('a') }, { challenge_response: Buffer.from('b') }];
  for (const message of messages) await talk.send(message);
  talk.end();
  assert.equal((await talk.responses.next()).value.challenge.toString(), 'z');
  assert.equal((await talk.responses.next()).done, true);
  const codec = messageCodec('spire.api.server.agent.v1.AttestAgentRequest');
  assert.deepEqual(
    Buffer.concat(bodies),
    Buffer.concat(messages.map((message) => encoded(codec.encode(message)).frame)),
  );
  assert.equal(streams.length, 4);
  // And no third time.
  const refused = await faultOf(call());
  assert.deepEqual([refused.status, refused.message], [Status.UNAVAILABLE, 'the other end refused the stream']);
  assert.equal(streams.length, 6);
});

test(
  'streams above the last one of a GOAWAY are made once more on a new connection, one below it is not',
  limit,
  async (t) => {
    const { call, streams, sessions } = await rig(
      t,
      () => {},
      (stream) => {
        // What it says is that the first stream was looked at and this one was not.
        stream.session!.goaway(constants.NGHTTP2_NO_ERROR, 1);
      },
      answer(count(6)),
    );
    const first = call();
    await until(() => streams.length === 1);
    assert.deepEqual(await call(), { count: 6 });
    assert.equal(sessions.length, 2);
    // The first goes on where it was.
    const { stream } = streams[0]!;
    respond(stream);
    stream.end(count(1));
    assert.deepEqual(await first, { count: 1 });
    assert.equal(streams.length, 3);
  },
);

test('a GOAWAY with an error breaks off what was looked at, and the rest is made once more', limit, async (t) => {
  const { call, streams } = await rig(
    t,
    () => {},
    (stream) => stream.session!.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM, 1),
    answer(count(7)),
  );
  const first = faultOf(call());
  await until(() => streams.length === 1);
  assert.deepEqual(await call(), { count: 7 });
  const fault = await first;
  assert.deepEqual([fault.code, fault.status], ['peer/unavailable', Status.UNAVAILABLE]);
  assert.match(fault.message, /^cannot reach "/);
  assert.equal(streams.length, 3);
});

test(
  'a connection that breaks fails its calls as not reached, once each; the next call takes another',
  limit,
  async (t) => {
    const { call, channel, streams, sessions } = await rig(
      t,
      () => {},
      (stream) => {
        respond(stream);
        stream.write(challenge('a'));
      },
      answer(count(8)),
    );
    const first = faultOf(call());
    await until(() => streams.length === 1);
    const talk = channel.bidi(agents, 'AttestAgent');
    await talk.responses.next();
    sessions[0]!.socket.destroy();
    for (const fault of [await first, await faultOf(talk.responses.next())]) {
      assert.equal(fault.code, 'peer/unavailable');
      assert.match(fault.message, /^cannot reach ".*": /);
    }
    await assert.rejects(talk.send({}), (fault: Fault) => fault.code === 'call/cancelled');
    assert.deepEqual(await call(), { count: 8 });
    assert.deepEqual([streams.length, sessions.length], [3, 2]);
  },
);

test(
  'a connection that the server ends while nothing is on it costs the next call nothing but a new one',
  limit,
  async (t) => {
    const { call, sessions } = await rig(t, answer(count(9)));
    for (const end of [
      (session: ServerHttp2Session) => session.close(),
      (session: ServerHttp2Session) => session.destroy(),
    ]) {
      await call();
      const closed = once(sessions.at(-1)!, 'close');
      end(sessions.at(-1)!);
      await closed;
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(await call(), { count: 9 });
    }
    assert.equal(sessions.length, 3);
  },
);

test('an answer that comes before the request has ended ends the call on both sides', limit, async (t) => {
  const closed = Promise.withResolvers<void>();
  const { channel } = await rig(t, (stream) => {
    stream.on('close', () => closed.resolve());
    only(stream, { 'grpc-status': 8, 'grpc-message': 'full' });
  });
  const talk = channel.bidi(agents, 'AttestAgent');
  const fault = await faultOf(talk.responses.next());
  assert.equal(fault.message, 'full');
  await closed.promise;
});

test(
  'a stream that the server has ended is over on both sides, though nobody has read what came on it',
  limit,
  async (t) => {
    const closed = Promise.withResolvers<void>();
    const { channel, sessions } = await rig(t, (stream) => {
      stream.resume();
      stream.on('close', () => closed.resolve());
      respond(stream);
      stream.write(challenge('a'));
      stream.on('end', () => {
        stream.write(challenge('b'));
        setImmediate(() => stream.end(challenge('c')));
      });
    });
    const talk = channel.bidi(agents, 'AttestAgent');
    await talk.responses.next();
    talk.end();
    await closed.promise;
    // And the connection, which waits for the streams of both.
    const gone = once(sessions[0]!, 'close');
    channel.close();
    await gone;
    assert.equal((await talk.responses.next()).value.challenge.toString(), 'b');
    assert.equal((await talk.responses.next()).value.challenge.toString(), 'c');
    assert.equal((await talk.responses.next()).done, true);
  },
);

test('what is told of before the headers that it came with counts, unless they are those of a page', () => {
  const answered = (status: number, type: string) => {
    const stream = Object.assign(new Duplex({ read() {}, write: (_bytes, _encoding, done) => done() }), {
      close() {},
      rstCode: 0,
    });
    const connection = { begin: () => stream, left() {}, isBroken: false, isOpen: true };
    const way = { take: () => connection, leave() {}, scheme: 'http', authority: 'a' };
    const seen: unknown[] = [];
    const receiver = {
      take: (message: Buffer) => seen.push(message.toString()),
      over: (error: Fault) => seen.push(error?.status),
    };
    new OutgoingCall(way as unknown as CurrentConnection, '/a/b', {}, receiver, drivenClock()).begin(Buffer.alloc(5));
    stream.emit('data', encoded(Buffer.from('one')).frame.subarray(0, 6));
    stream.emit('data', encoded(Buffer.from('one')).frame.subarray(6));
    stream.emit('response', { ':status': status, 'content-type': type }, 0);
    stream.emit('trailers', status === 200 ? { 'grpc-status': '0' } : {});
    stream.emit('end');
    return seen;
  };
  assert.deepEqual(answered(200, 'application/grpc'), ['one', undefined]);
  assert.deepEqual(answered(200, 'text/html'), [Status.UNKNOWN]);
  assert.deepEqual(answered(503, 'text/html'), [Status.UNAVAILABLE]);
});

test('leaving out the end: a conversation that is ended from here takes no message more', limit, async (t) => {
  const { channel } = await rig(t, (stream) => {
    stream.resume();
    stream.on('end', () => only(stream, { 'grpc-status': 0 }));
  });
  const talk = channel.bidi(agents, 'AttestAgent');
  talk.end();
  assert.equal((await faultOf(talk.send({}))).code, 'call/cancelled');
  assert.equal((await talk.responses.next()).done, true);
});
