import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Fault } from '../../../src/errors.ts';
import { type ObservePorts, observe, runChecks } from '../../../src/observe/http.ts';
import { prometheusMetrics } from '../../../src/observe/metrics.ts';
import { systemClock } from '../../../src/run/clock.ts';
import { drivenClock } from '../../support/clock.ts';

const anyPort = { host: '127.0.0.1', port: 0 };
const paths = { livePath: '/live', readyPath: '/ready' };

async function started(t: TestContext, ports: Partial<ObservePorts> = {}, metrics = false) {
  const collected = metrics ? await prometheusMetrics('agent', '1') : undefined;
  const observing = await observe(
    { health: { ...paths, listen: anyPort }, metrics: metrics ? { listen: anyPort } : {} },
    { clock: systemClock, live: {}, ready: {}, collected, ...ports },
  );
  t.after(() => observing.close());
  const get = (path: string, init?: RequestInit, at = observing.health): Promise<Response> =>
    fetch(`http://127.0.0.1:${at?.port}${path}`, { ...init, headers: { connection: 'close' } });
  return { observing, get };
}

test('live and ready say that all is well', async (t) => {
  const { get } = await started(t, { ready: { store: () => {}, server: async () => {} } });
  const live = await get('/live');
  assert.deepEqual([live.status, await live.json()], [200, { status: 'ok', checks: {} }]);
  const ready = await get('/ready?verbose=1');
  assert.equal(ready.headers.get('content-type'), 'application/json');
  assert.deepEqual([ready.status, await ready.json()], [200, { status: 'ok', checks: { store: 'ok', server: 'ok' } }]);
});

test('a failing check is told: what a fault may tell, and of a defect nothing', async (t) => {
  const { get } = await started(t, {
    ready: {
      store: () => Promise.reject(new Fault('peer/unavailable', 'the store does not answer', { detail: 'canary' })),
      other: () => {
        throw new Error('canary');
      },
      fine: () => {},
    },
  });
  const ready = await get('/ready');
  const text = await ready.text();
  assert.equal(ready.status, 503);
  assert.deepEqual(JSON.parse(text), {
    status: 'failing',
    checks: { store: 'the store does not answer', other: 'failing; the log says why', fine: 'ok' },
  });
  assert.doesNotMatch(text, /canary/);
  assert.equal((await get('/live')).status, 200);
});

test('a check that hangs fails after three seconds and is told so by its signal', async () => {
  const clock = drivenClock();
  let aborted = false;
  const answer = runChecks(
    {
      slow: (signal) =>
        new Promise(() => {
          signal.addEventListener('abort', () => {
            aborted = true;
          });
        }),
    },
    clock,
  );
  await clock.advance(3000);
  const { status, body } = await answer;
  assert.deepEqual([status, JSON.parse(body).checks, aborted], [503, { slow: 'no answer in 3 s' }, true]);
  assert.equal(clock.waiting, 0);
});

test('metrics are served on their own address, and the checks are not', async (t) => {
  const { get, observing } = await started(t, {}, true);
  const metrics = await get('/metrics', undefined, observing.metrics);
  assert.match(metrics.headers.get('content-type') ?? '', /^text\/plain/);
  assert.match(await metrics.text(), /^mutual_info\{program="agent"/m);
  assert.equal((await get('/live', undefined, observing.metrics)).status, 404);
  assert.equal((await get('/metrics')).status, 404);
});

test('one address can serve both', async (t) => {
  const first = await observe(
    { health: { ...paths, listen: anyPort }, metrics: {} },
    { clock: systemClock, live: {}, ready: {} },
  );
  const at = first.health!;
  await first.close();
  const collected = await prometheusMetrics('server', '1');
  const observing = await observe(
    { health: { ...paths, listen: at }, metrics: { listen: at } },
    { clock: systemClock, live: {}, ready: {}, collected },
  );
  t.after(() => observing.close());
  for (const path of ['/live', '/metrics']) {
    assert.equal((await fetch(`http://127.0.0.1:${at.port}${path}`, { headers: { connection: 'close' } })).status, 200);
  }
});

test('nothing is opened unless it is configured', async () => {
  const observing = await observe({ health: paths, metrics: {} }, { clock: systemClock, live: {}, ready: {} });
  assert.deepEqual([observing.health, observing.metrics], [undefined, undefined]);
  await observing.close();
});

test('other paths and methods are refused', async (t) => {
  const { get } = await started(t);
  assert.equal((await get('/')).status, 404);
  assert.equal((await get('/live/../ready2')).status, 404);
  const post = await get('/live', { method: 'POST', body: 'x' });
  assert.deepEqual([post.status, post.headers.get('allow')], [405, 'GET, HEAD']);
  const head = await get('/live', { method: 'HEAD' });
  assert.deepEqual([head.status, await head.text()], [200, '']);
});

test('garbage on the wire closes that connection alone', async (t) => {
  const { get, observing } = await started(t);
  await new Promise<void>((resolve, reject) => {
    const socket = connect(observing.health!.port, '127.0.0.1', () => socket.write('\x16\x03\x01garbage\r\n\r\n'));
    socket.on('close', () => resolve());
    socket.on('error', reject);
    socket.resume();
  });
  assert.equal((await get('/live')).status, 200);
});

test('a busy port has its own sentence, and leaves nothing open', async (t) => {
  const { observing } = await started(t);
  await assert.rejects(
    observe(
      { health: { ...paths, listen: observing.health! }, metrics: {} },
      { clock: systemClock, live: {}, ready: {} },
    ),
    (error) =>
      error instanceof Fault &&
      error.code === 'state/refused' &&
      error.message === `cannot listen on "127.0.0.1:${observing.health!.port}": another program listens there` &&
      error.hint === 'Give health.listen another address.',
  );
});
