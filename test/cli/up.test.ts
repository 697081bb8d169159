import { deepEqual, equal, match } from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { run } from '../../cli/run.ts';
import { testPorts } from './support/ports.ts';
import { startUp, type Up } from './support/up.ts';

async function directoryFor(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mutual-up-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}

/** What a command prints as JSON, against a running `up`. */
// biome-ignore lint/suspicious/noExplicitAny: each test knows its message
async function json({ env }: Up, ...words: string[]): Promise<any> {
  const ports = testPorts({ env });
  equal(await run([...words, '--output', 'json'], ports), 0, ports.printed.err);
  return JSON.parse(ports.printed.out);
}

const agentsOf = async (up: Up): Promise<string[]> =>
  (await json(up, 'agent', 'list')).agents.map((agent: { id: { path: string } }) => agent.id.path);

suite('up', () => {
  test('prints the socket to export, a first SVID and what to try, keeps running, and stops cleanly', async (t) => {
    const directory = await directoryFor(t);
    const up = await startUp(directory);
    try {
      const { out, err } = up.ports.printed;
      match(
        out,
        new RegExp(`^export SPIFFE_ENDPOINT_SOCKET=unix://${directory}/\\.mutual/agent/public/api\\.sock$`, 'm'),
      );
      match(out, /^spiffe:\/\/example\.org\/user\/tester +\S+ \([\dms]+ ago\)/m);
      match(out, /npx mutual fetch x509/);
      equal(err, '');
      const { svids } = await json(up, 'fetch', 'x509');
      deepEqual(
        svids.map(({ spiffe_id }: { spiffe_id: string }) => spiffe_id),
        ['spiffe://example.org/user/tester'],
      );
      equal((await json(up, 'health')).agent.status, 'SERVING');
    } finally {
      equal(await up.stop(), 0);
    }
    equal(existsSync(join(directory, '.mutual/agent/public/api.sock')), false, 'the socket is gone');
    equal(existsSync(join(directory, '.mutual/server/private/api.sock')), false, 'the admin socket is gone');
  });

  test('a second start goes on: the same agent, no new token, no second entry', async (t) => {
    const directory = await directoryFor(t);
    const first = await startUp(directory);
    const [agents, entries] = [await agentsOf(first), await json(first, 'entry', 'list')];
    await first.stop();
    const second = await startUp(directory);
    try {
      deepEqual(await agentsOf(second), agents);
      deepEqual(await json(second, 'entry', 'list'), entries);
      equal(second.ports.printed.err, '');
    } finally {
      await second.stop();
    }
  });

  for (const [what, spoil] of [
    ['is broken', undefined],
    ['is of an evicted agent', 'evict'],
    ['is of a banned agent', 'ban'],
  ] as const) {
    test(`when the agent's state ${what}, it says so and joins anew`, async (t) => {
      const directory = await directoryFor(t);
      const first = await startUp(directory);
      const before = await agentsOf(first);
      const state = join(directory, '.mutual/agent/state');
      // Set aside while the agent runs: an agent that is shut out forgets what it has.
      await cp(state, `${state}.kept`, { recursive: true });
      if (spoil) await json(first, 'agent', spoil, '--spiffe-id', `spiffe://example.org${before[0]}`);
      await first.stop();
      await rm(state, { recursive: true });
      await rename(`${state}.kept`, state);
      if (!spoil) await writeFile(join(state, 'node.json'), '{');
      const second = await startUp(directory);
      try {
        const after = await agentsOf(second);
        equal(after.filter((each) => !before.includes(each)).length, 1, 'a new agent');
        match(second.ports.printed.err, /^The agent cannot go on with what it kept \(.+\); it joins anew\.\n$/);
        equal(existsSync(`${state}.unusable`), true, 'nothing is lost');
      } finally {
        equal(await second.stop(), 0);
      }
    });
  }

  test("when the server's data is gone, the agent trusts the new server anew", async (t) => {
    const directory = await directoryFor(t);
    await (await startUp(directory)).stop();
    await rm(join(directory, '.mutual/server'), { recursive: true });
    const second = await startUp(directory);
    try {
      equal((await agentsOf(second)).length, 1);
      match(second.ports.printed.err, /^The agent cannot go on with what it kept \(.+\); it joins anew\.\n$/);
    } finally {
      equal(await second.stop(), 0);
    }
  });

  test('when the agent is evicted while it runs, it ends and says why', async (t) => {
    const directory = await directoryFor(t);
    const up = await startUp(directory);
    const [agent] = await agentsOf(up);
    await json(up, 'agent', 'evict', '--spiffe-id', `spiffe://example.org${agent}`);
    equal(await up.ended, 1);
    match(up.ports.printed.err, /^error: .*evicted/m);
  });

  test('a busy port has its own sentence', async (t) => {
    const directory = await directoryFor(t);
    const busy = createServer();
    await new Promise<void>((resolve) => busy.listen(0, '127.0.0.1', resolve));
    t.after(() => busy.close());
    const { port } = busy.address() as { port: number };
    const ports = testPorts({ directory });
    const exit = await run(['up', '--listen', `127.0.0.1:${port}`], ports);
    match(ports.printed.err, new RegExp(`^error: .*127\\.0\\.0\\.1:${port}.*\nhint: `));
    match(ports.printed.err, /taken by another program/);
    equal(exit, 1);
  });

  test('a second one in the same directory is refused, and the first goes on', async (t) => {
    const directory = await directoryFor(t);
    const up = await startUp(directory);
    try {
      const ports = testPorts({ directory });
      equal(await run(['up', '--listen', '127.0.0.1:0'], ports), 1);
      match(ports.printed.err, /^error: .*already runs.*\nhint: /);
      equal((await json(up, 'fetch', 'x509')).svids.length, 1);
    } finally {
      await up.stop();
    }
  });

  test('no token is ever written to a file', async (t) => {
    const directory = await directoryFor(t);
    const up = await startUp(directory);
    const token = (await agentsOf(up))[0]!.split('/').at(-1)!;
    await up.stop();
    for (const log of ['server.log', 'agent.log']) {
      const text = await readFile(join(directory, '.mutual', log), 'utf8');
      // The agent's ID has the token as its last part, used up by then.
      equal(text.replaceAll(`/spire/agent/join_token/${token}`, '').includes(token), false, log);
    }
  });
});
