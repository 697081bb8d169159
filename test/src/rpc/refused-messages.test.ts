/** Messages that no handler sees have their outcome all the same: once, with the reason the caller was given. */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Fault } from '../../../src/errors.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import { type Call, serveUnix } from '../../../src/rpc/serve.ts';

const workload = 'SpiffeWorkloadAPI';
const agents = 'spire.api.server.agent.v1.Agent';
const sync = 'mutual.server.v1.Sync';

async function served() {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const outcomes: [string, string | undefined, string | undefined][] = [];
  const pids: number[] = [];
  const handled: string[] = [];
  const serving = await serveUnix({
    path,
    mode: 0o600,
    limits: { messageBytes: 1_000 },
    onDone(call: Call, fault) {
      outcomes.push([call.method.slice(call.method.lastIndexOf('/') + 1), fault?.code, fault?.message]);
      if (call.caller.kind === 'unix') pids.push(call.caller.peer.pid);
    },
    services: [
      {
        name: workload,
        methods: {
          ValidateJWTSVID(_request, { method }) {
            handled.push(method);
            throw new Fault('limit/exceeded', 'our own words');
          },
          FetchX509SVID: (_request, { method }) => void handled.push(method),
        },
      },
      { name: agents, methods: {} },
      {
        name: sync,
        methods: {
          async Watch(requests: AsyncIterable<object>) {
            for await (const _ of requests) handled.push('Watch');
          },
        },
      },
    ],
  });
  const channel = connectUnix(path);
  return {
    channel,
    outcomes,
    pids,
    handled,
    async [Symbol.asyncDispose]() {
      channel.close();
      await serving.close(0);
    },
  };
}

const large = { audience: 'x'.repeat(2_000), svid: 'y', log_id: 'z' };
const isTooLarge = (fault: Fault): boolean => fault.status === 8 && /larger than max/.test(fault.message);

test('one of a unary method and one of a stream: each once, with its caller, and no handler sees it', async () => {
  await using rpc = await served();
  await assert.rejects(rpc.channel.unary(workload, 'ValidateJWTSVID', large), isTooLarge);
  const watch = rpc.channel.bidi(sync, 'Watch');
  await watch.send({ start: { position: '1', log_id: 'x'.repeat(2_000) } });
  await assert.rejects(watch.responses[Symbol.asyncIterator]().next(), isTooLarge);
  assert.deepEqual(
    rpc.outcomes.map(([method, code]) => [method, code]),
    [
      ['ValidateJWTSVID', 'limit/exceeded'],
      ['Watch', 'limit/exceeded'],
    ],
  );
  for (const [, , message] of rpc.outcomes) assert.match(message as string, /^Received message larger than max \(/);
  assert.deepEqual(rpc.pids, [process.pid, process.pid]);
  assert.deepEqual(rpc.handled, []);
});

test('what a handler refuses by the same status is its own outcome, once', async () => {
  await using rpc = await served();
  await assert.rejects(rpc.channel.unary(workload, 'ValidateJWTSVID', {}), (fault: Fault) => fault.status === 8);
  assert.deepEqual(rpc.outcomes, [['ValidateJWTSVID', 'limit/exceeded', 'our own words']]);
});
