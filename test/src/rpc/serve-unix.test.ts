/** gRPC over a Unix socket, both of our ends, on real sockets. */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Fault } from '../../../src/errors.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { type Call, encoded, type Service, serveUnix } from '../../../src/rpc/serve.ts';

const agents = 'spire.api.server.agent.v1.Agent';
const socketPath = (): string => join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');

async function pair(services: readonly Service[], more: Partial<Parameters<typeof serveUnix>[0]> = {}) {
  const path = socketPath();
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

test('a unary call carries its message there and back, and knows who calls', async () => {
  let seen: Call | undefined;
  await using rpc = await pair([
    {
      name: agents,
      methods: {
        CountAgents(request, call) {
          seen = call;
          assert.equal(request.filter.by_attestation_type, 'join_token');
          return { count: 7 };
        },
      },
    },
  ]);
  const response = await rpc.channel.unary(
    agents,
    'CountAgents',
    { filter: { by_attestation_type: 'join_token' } },
    { metadata: { 'x-a': 'b' }, deadlineMs: 5000 },
  );
  assert.deepEqual(response, { count: 7 });
  assert.equal(seen?.method, `/${agents}/CountAgents`);
  assert.equal(seen.metadata('X-A'), 'b');
  assert.equal(seen.metadata('x-b'), undefined);
  assert.ok(seen.deadline !== undefined && seen.deadline > 0);
  assert.ok(seen.caller.kind === 'unix');
  assert.equal(seen.caller.peer.pid, process.pid);
  assert.equal(seen.caller.peer.uid, process.getuid?.());
});
