/** `mutual broker watch`, a broker of ours: where it goes, what it does after a failure, and whose files are whose. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, existsSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { brokerEndpoint } from '../../cli/broker-endpoint.ts';
import { afterFailure, followWorkload } from '../../cli/broker-session.ts';
import { run } from '../../cli/run.ts';
import { Fault, Status, type StatusCode } from '../../src/errors.ts';
import { systemRandom } from '../../src/run/random.ts';
import { drivenClock } from '../support/clock.ts';
import { startPair } from '../support/pair.ts';
import { testPorts } from './support/ports.ts';

test('BE-5 the endpoint is the one given, else that of SPIFFE_BROKER_SOCKET: unix with an absolute path, tcp with host and port', () => {
  const ofVariable = { env: { SPIFFE_BROKER_SOCKET: 'unix:///run/b.sock' } };
  assert.deepEqual(brokerEndpoint(undefined, ofVariable), { path: '/run/b.sock' });
  assert.deepEqual(brokerEndpoint('tcp://127.0.0.1:8000', ofVariable), { host: '127.0.0.1', port: 8000 });
  assert.deepEqual(brokerEndpoint('tcp://broker.example.com:8443', ofVariable), {
    host: 'broker.example.com',
    port: 8443,
  });
  assert.deepEqual(brokerEndpoint('tcp://[::1]:8443', ofVariable), { host: '::1', port: 8443 });
  assert.throws(() => brokerEndpoint(undefined, { env: {} }), /no broker endpoint is known/);
  for (const wrong of [
    'unix://host/run/b.sock',
    'unix:///',
    'unix:run/b.sock',
    'unix:///run/b.sock?x=1',
    'unix:///run/b.sock#x',
    'tcp://127.0.0.1',
    'tcp://127.0.0.1:8000/foo',
    'tcp://127.0.0.1:0',
    'tcp://127.0.0.1:65536',
    'tcp://user@127.0.0.1:8000',
    'tcp://[broker]:8000',
    'tcp://:8000',
    'http://127.0.0.1:8000',
    '/run/b.sock',
  ]) {
    assert.throws(() => brokerEndpoint(wrong, { env: {} }), /is not valid/, wrong);
  }
});

const fault = (status: StatusCode, reason?: string): Fault =>
  new Fault('peer/failed', 'm', { status, ...(reason === undefined ? {} : { info: { reason, domain: 'spiffe.io' } }) });

test('BE-9 BR-18 BR-19 what a client does after a failure, by its status, and by its reason where one is told', () => {
  const cases: [Fault, string, boolean][] = [
    [fault(Status.INVALID_ARGUMENT), 'stop', false],
    [fault(Status.INVALID_ARGUMENT, 'WORKLOAD_REFERENCE_INVALID'), 'stop', false],
    [fault(Status.UNIMPLEMENTED), 'stop', false],
    [fault(Status.UNAVAILABLE), 'later', false],
    [fault(Status.RESOURCE_EXHAUSTED), 'later', false],
    [fault(Status.UNAUTHENTICATED), 'renew', false],
    [fault(Status.NOT_FOUND), 'stop', true],
    [fault(Status.NOT_FOUND, 'WORKLOAD_NOT_FOUND'), 'stop', true],
    [fault(Status.PERMISSION_DENIED, 'WORKLOAD_NOT_ENTITLED'), 'later', true],
    [fault(Status.PERMISSION_DENIED), 'stop', true],
    [new Fault('peer/untrusted', 'm'), 'stop', false],
  ];
  for (const [failure, next, erase] of cases)
    assert.deepEqual(afterFailure(failure), { next, erase }, `${failure.status} ${failure.info?.reason}`);
});

test('BE-9 unavailable is tried again after a growing while, or when the server says; without a new SVID unauthenticated is not', async () => {
  const clock = drivenClock();
  const random = { ...systemRandom, unit: () => 0.5 };
  const stop = new AbortController();
  const ports = testPorts({ clock, random, stop: stop.signal });
  const opened: number[] = [];
  const answers = [
    fault(Status.UNAVAILABLE),
    fault(Status.UNAVAILABLE),
    new Fault('peer/unavailable', 'm', { retryAfterMs: 7_000 }),
    fault(Status.UNAUTHENTICATED),
    fault(Status.INVALID_ARGUMENT),
  ];
  const start = clock.now();
  let renewals = 0;
  let renewed = (): void => {};
  const session = {
    get renewals() {
      return renewals;
    },
    renewed: () => new Promise<void>((resolve) => (renewed = resolve)),
    channel: {
      // biome-ignore lint/correctness/useYield: a stream that fails at once
      async *stream() {
        opened.push(clock.now() - start);
        throw answers.shift();
      },
    } as never,
  };
  const said: string[] = [];
  const sink = {
    update: async () => {},
    erase: async () => {},
    failed: (why: Fault) => void said.push(why.message),
  };
  const end = followWorkload({ session, request: {}, once: false, ports, sink });
  await clock.advance(60_000);
  assert.deepEqual(opened, [0, 1_000, 3_000, 10_000]);
  await clock.advance(600_000);
  assert.equal(opened.length, 4);
  renewals = 1;
  renewed();
  assert.equal((await end)?.status, Status.INVALID_ARGUMENT);
  assert.equal(opened.length, 5);
  assert.equal(said.length, 4);
});

test('BR-13 an update with a mandatory field missing is discarded whole and said', async () => {
  const bytes = Buffer.from('x');
  const svid = { spiffe_id: 'spiffe://example.org/a', x509_svid: bytes, x509_svid_key: bytes, bundle: bytes, hint: '' };
  const whole = { svids: [svid], federated_bundles: {}, crl: [] };
  const messages: object[] = [{ ...whole, svids: [] }];
  for (const field of ['spiffe_id', 'x509_svid', 'x509_svid_key', 'bundle'])
    messages.push({ ...whole, svids: [svid, { ...svid, [field]: field === 'spiffe_id' ? '' : Buffer.alloc(0) }] });
  messages.push(whole);
  const taken: object[] = [];
  const said: string[] = [];
  const session = {
    renewals: 0,
    renewed: async () => {},
    channel: {
      async *stream() {
        yield* messages;
      },
    } as never,
  };
  const sink = {
    update: async (message: object) => void taken.push(message),
    erase: async () => {},
    failed: (why: Fault) => void said.push(why.message),
  };
  await followWorkload({ session, request: {}, once: true, ports: testPorts(), sink });
  assert.deepEqual(taken, [whole]);
  assert.equal(said.length, 5);
});

/** An agent that this process is a broker of, and workloads told apart by their programs. */
async function rig(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), 'mu-bw-'));
  t.after(() => rm(directory, { recursive: true }));
  const socket = join(directory, 'broker.sock');
  const pair = await startPair(t, {
    agent: {
      brokerSocket: socket,
      brokerProcesses: ['spiffe://example.org/broker'],
      workloadAttestorsUnixDiscoverWorkloadPath: 'true',
    },
  });
  const path = (program: string) => ({ selectors: [{ type: 'unix', value: `path:${program}` }] });
  await pair.admin.createEntry('/broker', path(realpathSync(process.execPath)));
  const env = { SPIFFE_BROKER_SOCKET: `unix://${socket}`, SPIFFE_ENDPOINT_SOCKET: `unix:${pair.agent.socket}` };
  return {
    pair,
    directory,
    entry: (id: string, name: string, more: object = {}) =>
      pair.admin.createEntry(`/${id}`, { ...path(join(directory, name)), ...more }),
    remove: (id: string) => pair.admin.call('spire.api.server.entry.v1.Entry', 'BatchDeleteEntry', { ids: [id] }),
    async workload(name: string): Promise<ChildProcess & { pid: number }> {
      const program = join(directory, name);
      copyFileSync('/bin/sleep', program);
      const child = spawn(program, ['600'], { stdio: 'ignore' });
      t.after(() => child.kill('SIGKILL'));
      await once(child, 'spawn');
      return child as ChildProcess & { pid: number };
    },
    /** Runs the command until it ends, or the test does. */
    start(words: readonly string[], unit = () => 0.5) {
      const stop = new AbortController();
      const ports = testPorts({
        env,
        directory,
        clock: pair.clock,
        random: { ...systemRandom, unit },
        stop: stop.signal,
      });
      const end = run(['broker', 'watch', '--agent-id', pair.agent.id, ...words], ports);
      t.after(async () => {
        stop.abort(new Error('stop'));
        await end;
      });
      const events = () =>
        ports.printed.out
          .trimEnd()
          .split('\n')
          .filter((line) => line.startsWith('{'))
          .map((line) => JSON.parse(line));
      return { ports, end, events };
    },
  };
}

test('BR-12 BR-22 each workload has a folder of its own, with its own SVIDs and bundles and the hint of each', async (t) => {
  const { pair, directory, entry, workload, start } = await rig(t);
  const { x509_authorities } = await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'GetBundle', {});
  const bundle = { trust_domain: 'other.org', x509_authorities };
  await pair.admin.call('spire.api.server.bundle.v1.Bundle', 'BatchSetFederatedBundle', { bundle: [bundle] });
  await entry('web', 'web', { hint: 'internal', federates_with: ['other.org'] });
  await entry('web-outside', 'web', { hint: 'external' });
  await entry('db', 'db');
  const [web, db] = [await workload('web'), await workload('db')];
  const { ports, end } = start(['--pid', String(web.pid), '--pid', String(db.pid), '--write', 'svids', '--once']);
  assert.equal(await end, 0, ports.printed.err);
  const folder = (pid: number, name = ''): string => join(directory, 'svids', `pid-${pid}`, name);
  const identities = JSON.parse(readFileSync(folder(web.pid, 'identities.json'), 'utf8'));
  const byHint = Object.fromEntries(identities.map((one: any) => [one.hint, one]));
  for (const [hint, id] of [
    ['internal', 'spiffe://example.org/web'],
    ['external', 'spiffe://example.org/web-outside'],
  ] as const) {
    const { spiffe_id, svid, key } = byHint[hint];
    assert.equal(spiffe_id, id);
    assert.ok(new X509Certificate(readFileSync(folder(web.pid, svid))).subjectAltName!.includes(id));
    assert.equal(statSync(folder(web.pid, key)).mode & 0o777, 0o600);
  }
  assert.ok(existsSync(folder(web.pid, 'bundle.other.org.pem')));
  assert.deepEqual(readdirSync(folder(db.pid)).sort(), [
    'bundle.pem',
    'crl.pem',
    'identities.json',
    'key.pem',
    'svid.pem',
  ]);
  assert.match(ports.printed.out, /HINT/);
  assert.ok(!ports.printed.out.includes('PRIVATE KEY'));
});

test('BR-19 BR-20 who loses its identity or ends has its files removed, nobody else; who gets it back has them again', async (t) => {
  const { pair, directory, entry, remove, workload, start } = await rig(t);
  const right = await entry('web', 'web');
  await entry('db', 'db');
  const [web, db] = [await workload('web'), await workload('db')];
  const { ports, end, events } = start([
    ...['--pid', String(web.pid), '--pid', String(db.pid), '--write', 'svids', '--output', 'json'],
  ]);
  const folder = (pid: number, name: string): string => join(directory, 'svids', `pid-${pid}`, name);
  const shows = (text: string) => pair.pass(ports.shows(text), 500);
  await shows(`"spiffe_id":"spiffe://example.org/web"`);
  await shows(`"spiffe_id":"spiffe://example.org/db"`);
  writeFileSync(folder(web.pid, 'of-somebody-else'), 'x');

  await remove(right);
  await shows('"event":"erased"');
  assert.deepEqual(readdirSync(join(directory, 'svids', `pid-${web.pid}`)), ['of-somebody-else']);
  assert.ok(existsSync(folder(db.pid, 'svid.pem')));
  assert.equal(events().at(-1).reason, 'WORKLOAD_NOT_ENTITLED');

  await entry('web2', 'web');
  await shows(`"spiffe_id":"spiffe://example.org/web2"`);
  assert.ok(existsSync(folder(web.pid, 'svid.pem')));

  for (const child of [web, db]) {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  assert.equal(await pair.pass(end, 500), 0, ports.printed.err);
  assert.deepEqual(readdirSync(join(directory, 'svids')), [`pid-${web.pid}`]);
  assert.deepEqual(
    events()
      .filter(({ event }) => event === 'erased')
      .map(({ reason }) => reason),
    ['WORKLOAD_NOT_ENTITLED', 'WORKLOAD_NOT_FOUND', 'WORKLOAD_NOT_FOUND'],
  );
});

test('BR-14 a change for all reaches the workloads one after the other', async (t) => {
  const { pair, entry, workload, start } = await rig(t);
  await entry('web', 'web');
  await entry('db', 'db');
  const [web, db] = [await workload('web'), await workload('db')];
  const units = [0.2, 0.8];
  const { ports, events } = start(
    ['--pid', String(web.pid), '--pid', String(db.pid), '--spread', '10s', '--output', 'json'],
    () => units.shift() ?? 0.5,
  );
  await ports.shows('example.org/web');
  await ports.shows('example.org/db');
  const before = events().length;
  const moment = pair.clock.now();
  await pair.admin.call('spire.api.server.localauthority.v1.LocalAuthority', 'PrepareX509Authority', {});
  const until = async (count: number): Promise<number> => {
    const reached = (async () => {
      while (events().length < before + count) await new Promise((resolve) => setImmediate(resolve));
    })();
    await pair.pass(reached, 250);
    return pair.clock.now() - moment;
  };
  const first = await until(1);
  const second = await until(2);
  assert.ok(first >= 2_000 && second - first >= 5_000, `${first} ${second}`);
});

test('what names no workload, no agent or nowhere is refused before anything is asked', async (t) => {
  const { start } = await rig(t);
  for (const [words, text] of [
    [[], /no workload is named/],
    [['--pod', 'web'], /--pod "web" is not valid: expected NAMESPACE\/NAME/],
    [['--pod-uid', 'x'], /--pod-uid "x" is not a UUID/],
    [['--pid', '-1'], /--pid/],
    [['--pid', '1', '--endpoint', 'ftp://x'], /the broker endpoint "ftp:\/\/x" \(--endpoint\) is not valid/],
  ] as const) {
    const { ports, end } = start(words);
    assert.equal(await end, 2);
    assert.match(ports.printed.err, text);
  }
});
