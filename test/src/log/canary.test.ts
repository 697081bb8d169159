/** Secrets are sent through everything here that writes or answers, and looked for at every end. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { agentProgram } from '../../../agent/config.ts';
import { serverProgram } from '../../../server/config.ts';
import { explain } from '../../../src/config/describe.ts';
import { inspectOptions } from '../../../src/config/read.ts';
import { Fault } from '../../../src/errors.ts';
import { createLog } from '../../../src/log.ts';
import { observe } from '../../../src/observe/http.ts';
import { prometheusMetrics } from '../../../src/observe/metrics.ts';
import { drivenClock } from '../../support/clock.ts';

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const token = randomUUID();
const header = Buffer.from('{"alg":"ES256","kid":"x","typ":"JWT"}').toString('base64url');
const canaries = {
  pem,
  jwt: `${header}.${Buffer.from('{"sub":"spiffe://a/b"}').toString('base64url')}.${'Q'.repeat(86)}`,
  token,
};
/** What must be found nowhere. */
const traces = [pem.split('\n')[1]!.slice(8, 48), canaries.jwt.slice(-60), canaries.jwt.slice(10, 40), token];

function assertClean(where: string, text: string): void {
  for (const trace of traces)
    assert.equal(text.includes(trace), false, `${where} holds a canary: ${text.slice(0, 400)}`);
}

test('no secret reaches a log, in either format, to a file or a writer', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'mutual-canary-'));
  t.after(() => rmSync(directory, { recursive: true }));
  for (const format of ['json', 'text'] as const) {
    const file = join(directory, format);
    const lines: string[] = [];
    const logs = [
      createLog({ level: 'trace', format, file, clock: drivenClock() }),
      createLog({ level: 'trace', format, write: (line) => lines.push(line), clock: drivenClock() }),
    ];
    for (const log of logs) {
      for (const secret of [canaries.pem, canaries.jwt, `join_token=${token}`]) {
        log.info({ note: secret, list: [secret], deep: { deeper: secret } }, 'given');
        log.error({ error: new Error(secret), fault: new Fault('input/invalid', secret, { detail: secret }) }, secret);
        log.child({ note: secret }).debug({}, 'child');
      }
      log.trace({ joinToken: token, request: { token }, payload: Buffer.from(token), key: privateKey }, 'request');
      log.close();
    }
    assertClean(`log as ${format}`, lines.join(''));
    assertClean(`log file as ${format}`, readFileSync(file, 'utf8'));
    assert.ok(lines.length > 5);
  }
});

test('no secret reaches a fault of the configuration, a warning or the explanation', async () => {
  const agent = { trustDomain: 'a', server: 'a:1', insecureBootstrap: true };
  for (const flags of [
    { ...agent, joinToken: token },
    { ...agent, joinToken: token, joinTokenFile: 'x', server: '' },
  ]) {
    const reading = await inspectOptions(agentProgram, { flags });
    assertClean('reading', JSON.stringify([reading.problems, reading.warnings, explain(agentProgram.table, reading)]));
  }
  const file = { path: 'a.yaml', text: `joinToken: [${token}]\n` };
  assertClean('file', JSON.stringify(await inspectOptions(agentProgram, { flags: agent, file })));
  const database = await inspectOptions(serverProgram, {
    flags: { trustDomain: 'a', database: `postgres://u:${token}@h/d` },
  });
  assertClean('database', JSON.stringify([database.problems, explain(serverProgram.table, database)]));
});

test('no secret reaches the answers over HTTP', async (t) => {
  const collected = await prometheusMetrics('server', '1');
  const listen = { host: '127.0.0.1', port: 0 };
  const failing = (): never => {
    throw new Error(`${pem} ${canaries.jwt} ${token}`);
  };
  const observing = await observe(
    { health: { listen, livePath: '/live', readyPath: '/ready' }, metrics: { listen } },
    { clock: drivenClock(), live: { a: failing }, ready: { b: async () => failing() }, collected },
  );
  t.after(() => observing.close());
  for (const [port, path] of [
    [observing.health?.port, '/live'],
    [observing.health?.port, '/ready'],
    [observing.metrics?.port, '/metrics'],
  ]) {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: 'close' } });
    assertClean(String(path), await answer.text());
  }
});
