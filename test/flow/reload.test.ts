/** SIGHUP on the real programs, in processes of their own: what their configuration says is taken, or refused whole. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { decodeJwt } from '../../src/crypto/jwt.ts';
import { type Channel, connectUnix } from '../../src/rpc/connect.ts';
import { parseId } from '../../src/spiffe/id.ts';
import { connectBroker, processReference, svidFrom } from '../support/broker.ts';
import { header } from '../support/pair.ts';
import { folderOf, killAfter } from '../support/programs.ts';
import { api } from '../support/server.ts';

const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
/** Of all that a program says after its start or a signal, on a machine that is busy with other things. */
const deadlineMs = 60_000;

interface Program {
  /** Writes the configuration and sends the signal; gives the lines that came of it, up to the one that ends it. */
  reload(config: string | object): Promise<string>;
  says(pattern: RegExp): Promise<RegExpExecArray>;
  hangUp(): void;
}

/** Starts a program with its configuration in a file. It is killed when the test ends. */
async function start(t: TestContext, words: readonly string[], path: string, config: object): Promise<Program> {
  await writeFile(path, JSON.stringify(config));
  const child: ChildProcess = spawn(process.execPath, [main, ...words, '--config', path], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  killAfter(t, child);
  let log = '';
  let from = 0;
  let wake = (): void => {};
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    log += text;
    wake();
  });
  child.once('exit', () => wake());
  const find = (pattern: RegExp): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no ${pattern} within ${deadlineMs} ms:\n${log}`)), deadlineMs);
      wake = () => {
        const found = pattern.exec(log.slice(from));
        if (found === null && child.exitCode === null && child.signalCode === null) return;
        clearTimeout(late);
        wake = () => {};
        if (found) resolve(found);
        else reject(new Error(`ended before it said ${pattern}:\n${log}`));
      };
      wake();
    });
  return {
    says: find,
    hangUp: () => void child.kill('SIGHUP'),
    async reload(next) {
      from = log.length;
      await writeFile(path, typeof next === 'string' ? next : JSON.stringify(next));
      child.kill('SIGHUP');
      await find(/configuration (read again|not taken).*\n/);
      return log.slice(from);
    },
  };
}

async function folder(t: TestContext): Promise<(name: string) => string> {
  const dir = await folderOf(t, 'mutual-hup-');
  return (name) => join(dir, name);
}

function admin(t: TestContext, path: string): Channel {
  const channel = connectUnix(path);
  t.after(() => channel.close());
  return channel;
}

const serverConfig = (at: (name: string) => string): object => ({
  trustDomain: 'example.org',
  dataDir: at('s'),
  listen: '127.0.0.1:0',
  rateLimits: { attest: 0 },
});

test('server: live options are in force at once, others are named and wait, a wrong file changes nothing', async (t) => {
  const at = await folder(t);
  const config = serverConfig(at);
  const server = await start(t, ['server', 'run'], at('server.json'), config);
  await server.says(/server ready/);
  const channel = admin(t, at('s/private/api.sock'));
  const claims = async () => {
    const request = { id: { trust_domain: 'example.org', path: '/web' }, audience: ['a'] };
    // biome-ignore lint/suspicious/noExplicitAny: a message.
    const { svid } = (await channel.unary(api.svid, 'MintJWTSVID', request)) as any;
    return decodeJwt(svid.token).claims as { iss?: string; exp: number; iat: number };
  };
  assert.equal((await claims()).iss, undefined);

  const changed = {
    ...config,
    jwtIssuer: 'https://id.example.org',
    defaultJwtSvidTtl: '2m',
    caTtl: '48h',
    log: { level: 'debug' },
  };
  const said = await server.reload(changed);
  assert.match(said, /INFO +option changed .*option=jwtIssuer from="" to=https:\/\/id\.example\.org/);
  assert.match(said, /INFO +option changed .*option=defaultJwtSvidTtl from=5m to=2m/);
  assert.match(said, /INFO +option changed .*option=log\.level from=info to=debug/);
  assert.match(
    said,
    /WARN +option changed in the configuration: it counts from the next start on option=caTtl from=24h to=48h/,
  );
  assert.match(said, /configuration read again changed=3/);
  const { iss, exp, iat } = await claims();
  assert.deepEqual([iss, exp - iat], ['https://id.example.org', 120]);

  for (const [wrong, sentence] of [
    [
      '{"trustDomain": ',
      /ERROR +configuration not taken: the old one stays reason="the configuration of the server cannot be used:/,
    ],
    [{ ...config, jwtIsuer: 'x' }, /jwtIsuer: is not an option; did you mean/],
    [{ ...config, defaultJwtSvidTtl: 'soon' }, /defaultJwtSvidTtl: .*soon/],
    [
      { ...config, jwtIssuer: 'https://other', nodeAttestors: { x509pop: { caBundlePaths: [at('nothing.pem')] } } },
      /nothing\.pem/,
    ],
  ] as const) {
    const answer = await server.reload(wrong);
    assert.match(answer, /configuration not taken: the old one stays/);
    assert.match(answer, sentence);
    assert.equal((await claims()).iss, 'https://id.example.org');
  }

  assert.match(await server.reload(changed), /configuration read again changed=0/);
});

test('server: a way to attest that is switched off takes no more nodes, and one that is switched on does again', async (t) => {
  const at = await folder(t);
  const config = serverConfig(at);
  const server = await start(t, ['server', 'run'], at('server.json'), config);
  const [, port] = await server.says(/server ready.* listen=127\.0\.0\.1:(\d+)/);
  const channel = admin(t, at('s/private/api.sock'));
  const node = async (name: string): Promise<Program> => {
    // biome-ignore lint/suspicious/noExplicitAny: a message.
    const { value } = (await channel.unary(api.agent, 'CreateJoinToken', { ttl: 600 })) as any;
    return start(t, ['agent', 'run'], at(`${name}.json`), {
      trustDomain: 'example.org',
      server: `127.0.0.1:${port}`,
      dataDir: at(name),
      joinToken: value,
      insecureBootstrap: true,
    });
  };
  await server.reload({ ...config, nodeAttestors: { joinToken: { enabled: false } } });
  await (await node('a')).says(/could not find node attestor type \\?"join_token/);
  await server.reload(config);
  await (await node('b')).says(/agent serves/);
});

test('server: the signal may come while it starts, which goes on', async (t) => {
  const at = await folder(t);
  const server = await start(t, ['server', 'run'], at('server.json'), serverConfig(at));
  // The first thing that is said; the store is open then, and no listener is.
  await server.says(/revocation list signed/);
  server.hangUp();
  await server.says(/server ready/);
  await server.says(/configuration read again/);
});

test('agent: limits, delegates and attestors change under the workloads; a wrong file changes nothing', async (t) => {
  const at = await folder(t);
  const server = await start(t, ['server', 'run'], at('server.json'), serverConfig(at));
  const [, port] = await server.says(/server ready.* listen=127\.0\.0\.1:(\d+)/);
  const operator = admin(t, at('s/private/api.sock'));
  // biome-ignore lint/suspicious/noExplicitAny: a message.
  const { value } = (await operator.unary(api.agent, 'CreateJoinToken', { ttl: 600 })) as any;
  const config = {
    trustDomain: 'example.org',
    server: `127.0.0.1:${port}`,
    dataDir: at('a'),
    joinToken: value,
    insecureBootstrap: true,
  };
  const agent = await start(t, ['agent', 'run'], at('agent.json'), config);
  await agent.says(/agent serves/);
  const control = admin(t, at('a/private/admin.sock'));
  const selectors = async (): Promise<string[]> => {
    // biome-ignore lint/suspicious/noExplicitAny: a message.
    const { selectors: all } = (await control.unary('mutual.agent.v1.Explain', 'Explain', { pid: process.pid })) as any;
    return all.map(({ type, value: text }: { type: string; value: string }) => `${type}:${text}`);
  };
  assert.ok(!(await selectors()).some((one) => one.startsWith('unix:path:')));
  assert.match(
    await agent.reload({ ...config, workloadAttestors: { unix: { discoverWorkloadPath: true } }, syncInterval: '9s' }),
    /WARN +option changed in the configuration: it counts from the next start on option=syncInterval from=5s to=9s/,
  );
  assert.ok((await selectors()).some((one) => one.startsWith('unix:path:')));

  const workload = admin(t, at('a/public/api.sock'));
  const fetch = (): Promise<unknown> =>
    workload.unary('SpiffeWorkloadAPI', 'FetchJWTBundles', {}, { metadata: header }).catch((error: Error) => error);
  await agent.reload({ ...config, limits: { callsPerSecond: 1 } });
  // At once: one after the other they may take a second each.
  const answers = await Promise.all(Array.from({ length: 20 }, fetch));
  assert.match(answers.join('\n'), /calls more than 1 times a second/);
  assert.match(await agent.reload({ ...config, limits: { callsPerUser: 0 } }), /limits\.callsPerUser: /);
  await agent.reload(config);
  for (let call = 0; call < 4; call++) assert.doesNotMatch(String(await fetch()), /times a second/);
});

test('agent: a broker comes by a reload, and its stream ends by the next one', async (t) => {
  const at = await folder(t);
  const server = await start(t, ['server', 'run'], at('server.json'), serverConfig(at));
  const [, port] = await server.says(/server ready.* listen=127\.0\.0\.1:(\d+)/);
  const operator = admin(t, at('s/private/api.sock'));
  const alias = { trust_domain: 'example.org', path: '/node' };
  // biome-ignore lint/suspicious/noExplicitAny: a message.
  const { value } = (await operator.unary(api.agent, 'CreateJoinToken', { ttl: 600, agent_id: alias })) as any;
  const own = { selectors: [{ type: 'unix', value: `uid:${process.getuid?.()}` }], parent_id: alias };
  const entries = [{ ...own, spiffe_id: { trust_domain: 'example.org', path: '/proxy' } }];
  await operator.unary(api.entry, 'BatchCreateEntry', { entries });
  const id = 'spiffe://example.org/proxy';
  const withBrokers = (processes: readonly string[]): object => ({
    trustDomain: 'example.org',
    server: `127.0.0.1:${port}`,
    dataDir: at('a'),
    joinToken: value,
    insecureBootstrap: true,
    broker: { socket: at('b.sock'), processes },
  });
  const agent = await start(t, ['agent', 'run'], at('agent.json'), withBrokers(['spiffe://example.org/other']));
  const [, agentId] = await agent.says(/agent serves.* id=(\S+)/);
  const workload = admin(t, at('a/public/api.sock'));
  const svid = await svidFrom(workload, id);
  const broker = connectBroker(t, { path: at('b.sock') }, parseId(agentId!), svid);
  const open = () => broker.open('SubscribeToX509Bundles', processReference(process.pid));
  await assert.rejects(open().next(), /"spiffe:\/\/example.org\/proxy" is not a broker/);
  assert.match(await agent.reload(withBrokers(['spiffe://example.org/other', id])), /option=broker.processes/);
  const stream = open();
  assert.ok((await stream.next()).value.bundles['spiffe://example.org'].length > 0);
  await agent.reload(withBrokers(['spiffe://example.org/other']));
  await assert.rejects(stream.next(), /may not refer to process \d+ over the socket/);
});
