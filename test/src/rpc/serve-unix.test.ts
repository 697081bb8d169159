/** gRPC over a Unix socket, both of our ends, on real sockets. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { connect as http2Connect } from 'node:http2';
import { connect as netConnect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Fault, Status } from '../../../src/errors.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { type Call, encoded, type Service, serveUnix, type UnixOptions } from '../../../src/rpc/serve.ts';

const agents = 'spire.api.server.agent.v1.Agent';
const workload = 'SpiffeWorkloadAPI';

async function pair(services: readonly Service[], more: Partial<UnixOptions> = {}) {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const serving = await serveUnix({ path, mode: 0o600, services, ...more });
  const channel = connectUnix(path);
  return {
    path,
    channel,
    serving,
    async [Symbol.asyncDispose]() {
      channel.close();
      await serving.close(0);
    },
  };
}

async function faultOf(promise: Promise<unknown>): Promise<Fault> {
  const error = await promise.then(
    () => assert.fail('it worked'),
    (error: unknown) => error,
  );
  assert.ok(error instanceof Fault, String(error));
  return error;
}

async function all<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const message of messages) found.push(message);
  return found;
}

test('WE-2 WE-7 a unary call carries its message there and back, and the server knows who calls', async () => {
  let seen: Call | undefined;
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        CountAgents(request, call) {
          seen = call;
          assert.equal(request.filter.by_attestation_type, 'join_token');
          assert.ok(call.deadline !== undefined && call.deadline > 0);
          return { count: 7 };
        },
      },
    },
  ]);
  const request = { filter: { by_attestation_type: 'join_token' } };
  const response = await rpc.channel.unary(agents, 'CountAgents', request, {
    metadata: { 'x-a': 'b' },
    deadlineMs: 60_000,
  });
  assert.deepEqual(response, { count: 7 });
  assert.equal(seen?.method, `/${agents}/CountAgents`);
  assert.equal(seen.metadata('X-A'), 'b');
  assert.equal(seen.metadata('x-b'), undefined);
  assert.ok(seen.caller.kind === 'unix');
  assert.equal(seen.caller.peer.pid, process.pid);
  assert.equal(seen.caller.peer.uid, process.getuid?.());
  assert.equal(seen.caller.peer.gid, process.getgid?.());
});

test('all calls of a connection have one caller, which is asked for once', async () => {
  const callers = new Set<unknown>();
  let asked = 0;
  const { linux } = await import('../../../src/rpc/unix-peer.ts');
  const kernel = {
    ...linux(),
    getSockOpt: (...args: Parameters<ReturnType<typeof linux>['getSockOpt']>) => {
      asked += 1;
      return linux().getSockOpt(...args);
    },
  };
  await using rpc = await pair(
    [{ name: agents, methods: { CountAgents: (_request, call) => void callers.add(call.caller) } }],
    { kernel },
  );
  for (let i = 0; i < 3; i++) await rpc.channel.unary(agents, 'CountAgents', {});
  assert.equal(callers.size, 1);
  assert.equal(asked, 2, 'SO_PEERCRED and SO_PEERPIDFD');
});

test('a handler may answer with bytes that were encoded before', async () => {
  const bytes = messageCodec('spire.api.server.agent.v1.CountAgentsResponse').encode({ count: 12 });
  await using rpc = await pair([{ name: agents, methods: { CountAgents: async () => encoded(bytes) } }]);
  assert.deepEqual(await rpc.channel.unary(agents, 'CountAgents', {}), { count: 12 });
});

test('a handler that returns nothing answers with the empty message', async () => {
  await using rpc = await pair([{ name: agents, methods: { DeleteAgent() {} } }]);
  assert.deepEqual(await rpc.channel.unary(agents, 'DeleteAgent', {}), {});
});

test('a Fault arrives with its status, message, hint and reason, and without its detail', async () => {
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        RenewAgent() {
          throw new Fault('caller/denied', 'agent "a" is banned', {
            reason: 'AGENT_BANNED',
            hint: 'Ask the operator.',
            detail: 'secret',
          });
        },
        async CountAgents() {
          throw new Fault('thing/missing', 'no agent "b"');
        },
      },
    },
  ]);
  const banned = await faultOf(rpc.channel.unary(agents, 'RenewAgent', {}));
  assert.equal(banned.status, Status.PERMISSION_DENIED);
  assert.equal(banned.code, 'caller/denied');
  assert.equal(banned.message, 'agent "a" is banned. Ask the operator.');
  assert.equal(banned.reason, 'AGENT_BANNED');
  assert.doesNotMatch(JSON.stringify(banned.cause), /secret/);
  const missing = await faultOf(rpc.channel.unary(agents, 'CountAgents', {}));
  assert.deepEqual([missing.status, missing.message, missing.reason], [Status.NOT_FOUND, 'no agent "b"', undefined]);
});

test('what is thrown and no Fault is told as "internal error" and nothing else, sync or async, unary or stream', async () => {
  const faults: Fault[] = [];
  await using rpc = await pair(
    [
      {
        name: agents,
        methods: {
          CountAgents() {
            throw new TypeError('the password is swordfish');
          },
          ListAgents: () => Promise.reject('swordfish'),
          GetAgent: () => ({ id: 'a string where a message belongs: swordfish' }),
          AttestAgent: async () => JSON.parse('swordfish'),
        },
      },
    ],
    { onFault: (_call, fault) => faults.push(fault) },
  );
  const { channel } = rpc;
  const outcomes = [
    await faultOf(channel.unary(agents, 'CountAgents', {})),
    await faultOf(channel.unary(agents, 'ListAgents', {})),
    await faultOf(channel.unary(agents, 'GetAgent', {})),
    await faultOf(all(channel.bidi(agents, 'AttestAgent').responses)),
  ];
  for (const fault of outcomes) {
    assert.deepEqual([fault.status, fault.message], [Status.INTERNAL, 'internal error']);
    assert.doesNotMatch(JSON.stringify(fault.cause), /swordfish/);
  }
  assert.equal(faults.length, 4);
  assert.match(faults[0]?.detail ?? '', /swordfish/);
});

test('a message that is no well-formed text, or a very long one, is still an answer', async () => {
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        CountAgents() {
          throw new Fault('input/invalid', 'half \ud83d');
        },
        GetAgent() {
          throw new Fault('input/invalid', 'ü'.repeat(100_000));
        },
      },
    },
  ]);
  assert.equal((await faultOf(rpc.channel.unary(agents, 'CountAgents', {}))).message, 'half \ufffd');
  const long = await faultOf(rpc.channel.unary(agents, 'GetAgent', {}));
  assert.deepEqual([long.status, long.message], [Status.INVALID_ARGUMENT, 'ü'.repeat(4096)]);
});

test('WE-19 methods without a handler, and services that are not served, answer UNIMPLEMENTED', async () => {
  await using rpc = await pair([{ name: agents, methods: {} }]);
  const method = await faultOf(rpc.channel.unary(agents, 'CountAgents', {}));
  assert.deepEqual(
    [method.code, method.message],
    ['method/unimplemented', `/${agents}/CountAgents is not offered here`],
  );
  assert.equal((await faultOf(all(rpc.channel.bidi(agents, 'AttestAgent').responses))).code, 'method/unimplemented');
  assert.equal((await faultOf(rpc.channel.unary(workload, 'ValidateJWTSVID', {}))).code, 'method/unimplemented');
});

test('the guard runs before every handler of every kind, and what it throws is the answer', async () => {
  const seen: string[] = [];
  const never = (): never => assert.fail('a handler ran');
  await using rpc = await pair(
    [
      { name: agents, methods: { CountAgents: never, AttestAgent: never } },
      { name: workload, methods: { FetchX509SVID: never } },
    ],
    {
      reflection: true,
      async guard(call) {
        seen.push(call.method);
        throw new Fault('input/invalid', 'security header missing');
      },
    },
  );
  const { channel } = rpc;
  const outcomes = [
    faultOf(channel.unary(agents, 'CountAgents', {})),
    faultOf(channel.unary(agents, 'GetAgent', {})),
    faultOf(all(channel.bidi(agents, 'AttestAgent').responses)),
    faultOf(all(channel.stream(workload, 'FetchX509SVID', {}))),
  ];
  for (const fault of await Promise.all(outcomes)) assert.equal(fault.message, 'security header missing');
  assert.equal(seen.length, 4);
});

test('WA-7 a server stream delivers its messages in order, then ends', async () => {
  await using rpc = await pair([
    {
      name: workload,
      methods: {
        async FetchX509Bundles(_request, _call, send) {
          for (let i = 0; i < 100; i++) await send({ bundles: { [`spiffe://td${i}`]: Buffer.from([i]) } });
        },
      },
    },
  ]);
  const messages = await all(rpc.channel.stream(workload, 'FetchX509Bundles', {}));
  assert.deepEqual(
    messages.map(({ bundles }) => Object.keys(bundles)[0]),
    Array.from({ length: 100 }, (_, i) => `spiffe://td${i}`),
  );
});

test('messages sent before a stream fails arrive before the failure', async () => {
  await using rpc = await pair([
    {
      name: workload,
      methods: {
        async FetchX509Bundles(_request, _call, send) {
          for (let i = 0; i < 5; i++) await send({ crl: [Buffer.from([i])] });
          throw new Fault('caller/denied', 'no identity issued');
        },
      },
    },
  ]);
  const messages: unknown[] = [];
  const fault = await faultOf(
    (async () => {
      for await (const message of rpc.channel.stream(workload, 'FetchX509Bundles', {})) messages.push(message);
    })(),
  );
  assert.equal(messages.length, 5);
  assert.equal(fault.message, 'no identity issued');
});

test('both ends of a conversation take turns, and either may end it', async () => {
  const requests: unknown[] = [];
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        async AttestAgent(messages, _call, send) {
          for await (const message of messages) {
            requests.push(message.step);
            if (message.step === 'params') await send({ challenge: Buffer.from('who?') });
            else break;
          }
          await send({ result: { reattestable: true } });
        },
      },
    },
  ]);
  const talk = rpc.channel.bidi(agents, 'AttestAgent');
  await talk.send({ params: { data: { type: 'x509pop', payload: Buffer.from('{}') } } });
  const responses: unknown[] = [];
  for await (const message of talk.responses) {
    responses.push(message.step);
    if (message.step === 'challenge') await talk.send({ challenge_response: message.challenge });
  }
  assert.deepEqual(requests, ['params', 'challenge_response']);
  assert.deepEqual(responses, ['challenge', 'result']);
  assert.equal((await faultOf(talk.send({ params: {} }))).code, 'call/cancelled');
});

test('a client that half-closes ends the requests, not the conversation', async () => {
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        async AttestAgent(messages, _call, send) {
          let count = 0;
          for await (const _message of messages) count += 1;
          await send({ challenge: Buffer.from([count]) });
        },
      },
    },
  ]);
  const talk = rpc.channel.bidi(agents, 'AttestAgent');
  for (let i = 0; i < 40; i++) void talk.send({ challenge_response: Buffer.alloc(1000) });
  talk.end();
  assert.deepEqual(
    (await all(talk.responses)).map(({ challenge }) => challenge[0]),
    [40],
  );
});

test('a caller that goes away aborts the signal of each of its calls, ends its requests and fails its sends', async () => {
  const gone: string[] = [];
  const started = Promise.withResolvers<void>();
  const done = Promise.withResolvers<void>();
  let running = 0;
  const running3 = (): void => {
    running += 1;
    if (running === 3) started.resolve();
  };
  const outcomes: unknown[] = [];
  await using rpc = await pair(
    [
      {
        name: agents,
        methods: {
          async CountAgents(_request, call) {
            running3();
            await once(call.signal, 'abort');
            gone.push('unary');
            return { count: 1 };
          },
          async AttestAgent(messages) {
            running3();
            try {
              for await (const _message of messages);
            } catch (error) {
              gone.push(`requests ${(error as Fault).code}`);
              throw error;
            }
          },
        },
      },
      {
        name: workload,
        methods: {
          async FetchX509SVID(_request, call, send) {
            running3();
            await once(call.signal, 'abort');
            await send({}).catch((error: Fault) => gone.push(`send ${error.code}`));
          },
        },
      },
    ],
    {
      onDone(_call, fault) {
        outcomes.push(fault?.code);
        if (outcomes.length === 3) done.resolve();
      },
    },
  );
  const session = http2Connect('http://localhost', { createConnection: () => netConnect(rpc.path) });
  for (const path of [`/${agents}/CountAgents`, `/${agents}/AttestAgent`, `/${workload}/FetchX509SVID`]) {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => {});
    stream.write(Buffer.alloc(5));
    if (!path.endsWith('AttestAgent')) stream.end();
  }
  await started.promise;
  session.destroy();
  await done.promise;
  await new Promise(setImmediate);
  assert.deepEqual(gone.sort(), ['requests call/cancelled', 'send call/cancelled', 'unary']);
  assert.deepEqual(outcomes, ['call/cancelled', 'call/cancelled', 'call/cancelled']);
});

test('the signal of a call that was answered is never aborted', async () => {
  const signals: AbortSignal[] = [];
  await using rpc = await pair([
    { name: agents, methods: { CountAgents: (_request, call) => void signals.push(call.signal) } },
    { name: workload, methods: { FetchX509SVID: async (_request, call) => void signals.push(call.signal) } },
  ]);
  await rpc.channel.unary(agents, 'CountAgents', {});
  await all(rpc.channel.stream(workload, 'FetchX509SVID', {}));
  rpc.channel.close();
  await rpc.serving.close(0);
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [false, false],
  );
});

test('an aborted signal of the client cancels the call on both sides, and its reason is what the caller gets', async () => {
  const aborted = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        async CountAgents(_request, call) {
          call.signal.addEventListener('abort', () => aborted.resolve());
          started.resolve();
          await aborted.promise;
        },
      },
    },
  ]);
  const controller = new AbortController();
  const call = rpc.channel.unary(agents, 'CountAgents', {}, { signal: controller.signal });
  await started.promise;
  const reason = new Error('enough');
  controller.abort(reason);
  await assert.rejects(call, reason);
  await aborted.promise;
  await assert.rejects(rpc.channel.unary(agents, 'CountAgents', {}, { signal: controller.signal }), reason);
  await assert.rejects(all(rpc.channel.stream(workload, 'FetchX509SVID', {}, { signal: controller.signal })), reason);
});

test('leaving the loop over a stream cancels the call', async () => {
  const ended = Promise.withResolvers<unknown>();
  await using rpc = await pair([
    {
      name: workload,
      methods: {
        async FetchX509SVID(_request, call, send) {
          await send({});
          await once(call.signal, 'abort');
          ended.resolve(call.signal.reason.code);
        },
      },
    },
  ]);
  for await (const _message of rpc.channel.stream(workload, 'FetchX509SVID', {})) break;
  assert.equal(await ended.promise, 'call/cancelled');
});

test('a deadline that passes ends the call on both sides', async () => {
  const outcome = Promise.withResolvers<unknown>();
  await using rpc = await pair(
    [{ name: agents, methods: { CountAgents: (_request, call) => once(call.signal, 'abort') } }],
    { onDone: (_call, fault) => outcome.resolve(fault?.status) },
  );
  const fault = await faultOf(rpc.channel.unary(agents, 'CountAgents', {}, { deadlineMs: 30 }));
  assert.deepEqual([fault.code, fault.status], ['call/late', Status.DEADLINE_EXCEEDED]);
  const seen = await outcome.promise;
  assert.ok(seen === Status.DEADLINE_EXCEEDED || seen === Status.CANCELLED, String(seen));
});

test('each call is told of once, with its outcome and how long it took', async () => {
  const told: unknown[] = [];
  let now = 1000;
  const clock = { now: () => now, after: () => () => {} };
  await using rpc = await pair(
    [
      {
        name: agents,
        methods: {
          CountAgents() {
            now += 25;
          },
          GetAgent() {
            throw new Fault('thing/missing', 'no agent');
          },
        },
      },
    ],
    { clock, onDone: (call, fault, ms) => told.push([call.method.split('/')[2], fault?.code, ms]) },
  );
  await rpc.channel.unary(agents, 'CountAgents', {});
  await faultOf(rpc.channel.unary(agents, 'GetAgent', {}));
  assert.deepEqual(told, [
    ['CountAgents', undefined, 25],
    ['GetAgent', 'thing/missing', 0],
  ]);
});

test('messages over 4 MiB are refused', async () => {
  await using rpc = await pair([{ name: agents, methods: { PostStatus() {} } }]);
  const fits = { agent_version: 'x'.repeat((4 << 20) - 100) };
  await rpc.channel.unary(agents, 'PostStatus', fits);
  const fault = await faultOf(rpc.channel.unary(agents, 'PostStatus', { agent_version: 'x'.repeat(4 << 20) }));
  assert.equal(fault.code, 'limit/exceeded');
});

test('headers over 64 KB are refused, and the server goes on', async () => {
  await using rpc = await pair([{ name: agents, methods: { CountAgents: () => ({ count: 1 }) } }]);
  await assert.rejects(rpc.channel.unary(agents, 'CountAgents', {}, { metadata: { big: 'x'.repeat(1 << 20) } }));
  const other = connectUnix(rpc.path);
  assert.deepEqual(await other.unary(agents, 'CountAgents', {}), { count: 1 });
  other.close();
});

test('a connection has at most its number of streams at a time; more wait their turn', async () => {
  let most = 0;
  let now = 0;
  await using rpc = await pair(
    [
      {
        name: agents,
        methods: {
          async CountAgents() {
            most = Math.max(most, ++now);
            await new Promise(setImmediate);
            now -= 1;
          },
        },
      },
    ],
    { limits: { streams: 4 } },
  );
  // The first call brings the server's settings.
  await rpc.channel.unary(agents, 'CountAgents', {});
  await Promise.all(Array.from({ length: 50 }, () => rpc.channel.unary(agents, 'CountAgents', {})));
  assert.ok(most > 1 && most <= 4, `${most} at a time`);
});

test('a caller who does not read costs the server one message, however many it has to send', async () => {
  let sent = 0;
  const stuck = Promise.withResolvers<void>();
  const message = { crl: [Buffer.alloc(1 << 20)] };
  await using rpc = await pair([
    {
      name: workload,
      methods: {
        async FetchX509Bundles(_request, call, send) {
          setTimeout(() => stuck.resolve(), 300);
          while (!call.signal.aborted) {
            await send(message);
            sent += 1;
          }
        },
      },
    },
  ]);
  const session = http2Connect('http://localhost', { createConnection: () => netConnect(rpc.path) });
  const stream = session.request({
    ':method': 'POST',
    ':path': `/${workload}/FetchX509Bundles`,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', () => {});
  stream.end(Buffer.alloc(5));
  stream.pause();
  await stuck.promise;
  assert.ok(sent <= 2, `${sent} MiB were sent to somebody who reads nothing`);
  session.destroy();
});

test('a caller who sends and does not wait is read one message ahead', async () => {
  const proceed = Promise.withResolvers<void>();
  const received = Promise.withResolvers<number>();
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        async AttestAgent(messages) {
          await proceed.promise;
          let count = 0;
          for await (const _message of messages) count += 1;
          received.resolve(count);
        },
      },
    },
  ]);
  const talk = rpc.channel.bidi(agents, 'AttestAgent');
  let taken = 0;
  for (let i = 0; i < 20; i++) {
    void talk.send({ challenge_response: Buffer.alloc(1 << 20) }).then(() => {
      taken += 1;
    });
  }
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(taken <= 4, `${taken} MiB were taken for a handler that reads nothing`);
  talk.end();
  proceed.resolve();
  assert.equal(await received.promise, 20);
});

test('WE-15 closing ends open streams with UNAVAILABLE at once, lets unary calls finish, and then nobody answers', async () => {
  const started = Promise.withResolvers<void>();
  const finish = Promise.withResolvers<void>();
  const rpc = await pair([
    {
      name: agents,
      methods: {
        async CountAgents() {
          started.resolve();
          await finish.promise;
          return { count: 3 };
        },
      },
    },
    {
      name: workload,
      methods: {
        async FetchX509SVID(_request, call, send) {
          await send({});
          await once(call.signal, 'abort');
        },
      },
    },
  ]);
  const stream = rpc.channel.stream(workload, 'FetchX509SVID', {});
  await stream.next();
  const call = rpc.channel.unary(agents, 'CountAgents', {});
  await started.promise;
  const closed = rpc.serving.close(60_000);
  assert.equal((await faultOf(stream.next())).status, Status.UNAVAILABLE);
  finish.resolve();
  assert.deepEqual(await call, { count: 3 });
  await closed;
  await rpc.serving.close(0);
  const fault = await faultOf(rpc.channel.unary(agents, 'CountAgents', {}));
  assert.equal(fault.code, 'peer/unavailable');
  assert.match(fault.message, /^cannot reach ".*": connect ENOENT/);
  rpc.channel.close();
  assert.match((await faultOf(rpc.channel.unary(agents, 'CountAgents', {}))).message, /is closed/);
});

test('closing waits for the grace and no longer', async () => {
  const started = Promise.withResolvers<void>();
  let fire: (() => void) | undefined;
  let grace = 0;
  const clock = {
    now: () => 0,
    after(ms: number, told: () => void) {
      grace = ms;
      fire = told;
      return () => {};
    },
  };
  const methods = {
    async CountAgents(_request: unknown, call: Call) {
      started.resolve();
      await once(call.signal, 'abort');
    },
  };
  const rpc = await pair([{ name: agents, methods }], { clock });
  const call = faultOf(rpc.channel.unary(agents, 'CountAgents', {}));
  await started.promise;
  const closed = rpc.serving.close(5000);
  assert.equal(grace, 5000);
  fire?.();
  await closed;
  assert.ok([Status.UNAVAILABLE, Status.CANCELLED, Status.INTERNAL].includes((await call).status as 14));
  rpc.channel.close();
});

test('a request that is not protobuf is refused without a handler', async () => {
  await using rpc = await pair([{ name: agents, methods: { GetAgent: () => assert.fail('it ran') } }]);
  const session = http2Connect('http://localhost', { createConnection: () => netConnect(rpc.path) });
  const stream = session.request({
    ':method': 'POST',
    ':path': `/${agents}/GetAgent`,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, 4]), Buffer.from([0xff, 0xff, 0xff, 0xff])]));
  const [headers] = await once(stream, 'response');
  assert.equal(headers['grpc-status'], '13');
  session.destroy();
});
