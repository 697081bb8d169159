/** Rate limits by address, on a clock that the test moves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Rates, rateLimiter } from '../../../server/api/limits.ts';
import { Fault } from '../../../src/errors.ts';
import type { Call } from '../../../src/rpc/serve.ts';
import { drivenClock, settle } from '../../support/clock.ts';
import { refusalOf, testServer } from '../../support/server.ts';

const none: Rates = { attest: 0, csr: 0, jwt: 0, wit: 0, push: 0, post: 0 };

function caller(address: string, more: object = {}): Call {
  const signal = new AbortController().signal;
  return {
    method: '/m',
    caller: { kind: 'tls', address, chain: [] },
    signal,
    broken: undefined,
    onBroken: () => () => {},
    metadata: () => undefined,
    ...more,
  } as Call;
}

/** A limiter, and a way to see which calls have passed. */
function limited(rates: Partial<Rates>) {
  const clock = drivenClock();
  const rechecked: Call[] = [];
  const limit = rateLimiter({ ...none, ...rates }, clock, async (call) => rechecked.push(call));
  return {
    clock,
    rechecked,
    limit,
    start(call: Call, kind: keyof Rates, count?: number) {
      const one = { state: 'waiting' as 'waiting' | 'passed' | Fault };
      limit(call, kind, count).then(
        () => {
          one.state = 'passed';
        },
        (error) => {
          one.state = error;
        },
      );
      return one;
    },
  };
}

test('a full bucket lets a burst of one second through at once; the next waits for its turn', async () => {
  const { clock, start } = limited({ csr: 500 });
  const burst = start(caller('a'), 'csr', 500);
  const next = start(caller('a'), 'csr', 250);
  await settle();
  assert.deepEqual([burst.state, next.state], ['passed', 'waiting']);
  await clock.advance(499);
  assert.equal(next.state, 'waiting');
  await clock.advance(1);
  assert.equal(next.state, 'passed');
});

test('turns come in order, one a second at a rate of one, and a quiet second fills no more than one bucket', async () => {
  const { clock, start } = limited({ attest: 1 });
  const calls = [1, 2, 3].map(() => start(caller('a'), 'attest'));
  const passed = () => calls.filter(({ state }) => state === 'passed').length;
  await settle();
  assert.equal(passed(), 1);
  await clock.advance(1000);
  assert.equal(passed(), 2);
  await clock.advance(1000);
  assert.equal(passed(), 3);
  await clock.advance(3_600_000);
  const later = [start(caller('a'), 'attest'), start(caller('a'), 'attest')];
  await settle();
  assert.deepEqual(
    later.map(({ state }) => state),
    ['passed', 'waiting'],
  );
});

test('addresses and kinds have buckets of their own; the admin socket has none', async () => {
  const { start } = limited({ attest: 1, post: 1 });
  const all = [
    start(caller('a'), 'attest'),
    start(caller('b'), 'attest'),
    start(caller('a'), 'post'),
    start(caller('a'), 'csr', 100_000),
    ...Array.from({ length: 5 }, () => start({ caller: { kind: 'unix' } } as Call, 'attest')),
  ];
  await settle();
  assert.ok(all.every(({ state }) => state === 'passed'));
});

test('more than the bucket holds is refused at once, with the numbers', async () => {
  const { limit } = limited({ csr: 500 });
  const fault = await refusalOf(limit(caller('a'), 'csr', 501));
  assert.deepEqual([fault.code, fault.message], ['limit/exceeded', 'rate (501) exceeds burst size (500)']);
  await limit(caller('a'), 'csr', 500);
});

test('a call whose deadline comes before its turn is refused at once and takes nobody’s turn', async () => {
  const { clock, start } = limited({ attest: 1 });
  start(caller('a'), 'attest');
  const hasty = start(caller('a', { deadline: clock.now() + 500 }), 'attest');
  const patient = start(caller('a', { deadline: clock.now() + 1500 }), 'attest');
  await settle();
  assert.ok(hasty.state instanceof Fault && hasty.state.code === 'limit/exceeded');
  assert.match(hasty.state.message, /possible in 1000 ms/);
  await clock.advance(1000);
  assert.equal(patient.state, 'passed');
});

test('the queue of one address is short: beyond half a minute nobody waits', async () => {
  const { start } = limited({ attest: 1 });
  const calls = Array.from({ length: 100 }, () => start(caller('a'), 'attest'));
  await settle();
  assert.equal(calls.filter(({ state }) => state === 'passed').length, 1);
  assert.equal(calls.filter(({ state }) => state === 'waiting').length, 30);
  assert.equal(calls.filter(({ state }) => state instanceof Fault).length, 69);
});

test('a caller that goes away while it waits leaves the queue', async () => {
  const { start, clock } = limited({ attest: 1 });
  const gone = new AbortController();
  start(caller('a'), 'attest');
  const waiting = start(caller('a', { signal: gone.signal }), 'attest');
  await settle();
  gone.abort(new Fault('call/cancelled', 'the caller went away'));
  await settle();
  assert.ok(waiting.state instanceof Fault && waiting.state.code === 'call/cancelled');
  assert.equal(clock.waiting, 0);
});

test('rights are looked at again after a wait, and only then', async () => {
  const { clock, start, rechecked } = limited({ attest: 1 });
  start(caller('a'), 'attest');
  const waiter = caller('a');
  start(waiter, 'attest');
  await clock.advance(1000);
  assert.deepEqual(rechecked, [waiter]);
});

test('an agent banned while it waits for its turn gets no SVID', async (t) => {
  const server = await testServer(t, { flags: { 'rate-limits-csr': 1 } });
  const agent = await server.attest();
  const entry = await server.entry('/web', agent.id);
  const ask = () => agent.call('svid', 'BatchNewX509SVID', { params: [{ entry_id: entry.id, csr: Buffer.alloc(0) }] });
  await ask();
  const waiting = ask();
  waiting.catch(() => {});
  await agent.call('sync', 'Position');
  await server.admin.call('agent', 'BanAgent', { id: { trust_domain: 'example.org', path: agent.id.slice(20) } });
  await server.clock.advance(1000);
  const fault = await refusalOf(waiting);
  assert.deepEqual([fault.code, fault.reason], ['caller/denied', 'AGENT_BANNED']);
});
