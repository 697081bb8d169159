/** When an idle program gives memory back: the decisions with a driven clock, and V8's part in a process of its own. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { giveBackWhenIdle, type Held } from '../../../src/run/give-back.ts';
import { drivenClock } from '../../support/clock.ts';

const MB = 1 << 20;

/** A program that has `left` MB when all has been let go of; `did` says what was asked of it and when, in seconds. */
function program(left = 40) {
  const clock = drivenClock();
  const start = clock.now();
  const state = { cpu: 0, resident: 2 * left * MB, heap: { held: 20 * MB, used: 16 * MB } };
  const did: string[] = [];
  const say = (what: string) => did.push(`${what} at ${(clock.now() - start) / 1000}`);
  const held: Held = {
    cpu: () => state.cpu,
    resident: () => state.resident,
    heap: () => state.heap,
    collect() {
      say('collects');
      state.heap = { held: state.heap.used, used: state.heap.used };
    },
    async letGo() {
      say('lets go');
      state.resident = left * MB;
    },
  };
  return { clock, state, did, stop: giveBackWhenIdle(clock, held) };
}

test('what a start left is let go of once, as soon as the program is idle', async () => {
  const { clock, state, did } = program();
  state.cpu += 2_000;
  await clock.advance(4_000);
  assert.deepEqual(did, [], 'it has worked half of the time');
  await clock.advance(4_000);
  assert.deepEqual(did, ['lets go at 8']);
  // Of what was let go of a program at rest needs some again.
  state.resident += 20 * MB;
  await clock.advance(3_600_000);
  assert.deepEqual(did, ['lets go at 8']);
});

test('what a program that does a little needs again is let go of ever more rarely', async () => {
  const { clock, state, did } = program();
  for (let at = 0; at < 3_600; at += 4) {
    state.cpu += 100;
    await clock.advance(4_000);
    state.resident = 70 * MB;
  }
  assert.deepEqual(
    did.slice(0, 6),
    [4, 12, 24, 44, 84, 164].map((at) => `lets go at ${at}`),
  );
  assert.deepEqual(
    did.slice(-2),
    [2_444, 3_044].map((at) => `lets go at ${at}`),
    'once in ten minutes at last',
  );
});

test('what a load leaves is let go of within ten seconds of rest, however rarely it was before', async () => {
  const { clock, state, did } = program();
  for (let at = 0; at < 600; at += 4) {
    state.cpu += 100;
    await clock.advance(4_000);
    state.resident = 70 * MB;
  }
  did.length = 0;
  for (let at = 600; at < 620; at += 4) {
    state.cpu += 1_000;
    state.resident += 10 * MB;
    await clock.advance(4_000);
  }
  assert.deepEqual(did, [], 'under load nothing is given back');
  await clock.advance(10_000);
  assert.deepEqual(did, ['lets go at 624']);
});

test('a heap with much room is collected, at most once a minute, and what that freed is let go of', async () => {
  const { clock, state, did } = program();
  await clock.advance(4_000);
  state.heap = { held: 60 * MB, used: 20 * MB };
  await clock.advance(4_000);
  assert.deepEqual(did, ['lets go at 4', 'collects at 8', 'lets go at 8']);
  did.length = 0;
  state.heap = { held: 60 * MB, used: 20 * MB };
  await clock.advance(56_000);
  assert.deepEqual(did, [], 'within the minute');
  await clock.advance(4_000);
  assert.deepEqual(did, ['collects at 68', 'lets go at 68']);
});

test('what closed connections hold is collected, though the heap has no room', async () => {
  const { clock, state, did } = program(300);
  state.heap = { held: 100 * MB, used: 95 * MB };
  await clock.advance(8_000);
  state.resident = 440 * MB;
  await clock.advance(56_000);
  assert.deepEqual(did, ['lets go at 4', 'lets go at 12'], 'less than half as much again');
  state.resident = 460 * MB;
  await clock.advance(4_000);
  assert.deepEqual(did.slice(2), ['collects at 68', 'lets go at 68']);
  await clock.advance(4_000);
  state.resident = 460 * MB;
  await clock.advance(48_000);
  assert.deepEqual(
    did.slice(4).map((what) => what.replace(/ at .*/, '')),
    ['lets go'],
    'within the minute',
  );
});

test('a large heap is not collected for the room that V8 leaves in it by itself', async () => {
  const { clock, state, did } = program(800);
  state.heap = { held: 390 * MB, used: 300 * MB };
  await clock.advance(600_000);
  assert.deepEqual(did, ['lets go at 4']);
  state.heap = { held: 410 * MB, used: 300 * MB };
  await clock.advance(4_000);
  assert.deepEqual(did.slice(1), ['collects at 604', 'lets go at 604']);
});

test('a large program takes more before it is worth it', async () => {
  const { clock, state, did } = program(800);
  state.resident = 1_000 * MB;
  await clock.advance(8_000);
  state.resident += 100 * MB;
  await clock.advance(56_000);
  assert.deepEqual(did, ['lets go at 4']);
  state.resident += MB;
  await clock.advance(4_000);
  assert.deepEqual(did, ['lets go at 4', 'lets go at 68']);
});

test('what is given back without being asked is not waited for to come again', async () => {
  const { clock, state, did } = program(80);
  await clock.advance(4_000);
  state.resident = 40 * MB;
  await clock.advance(4_000);
  state.resident = 60 * MB;
  await clock.advance(4_000);
  assert.deepEqual(did, ['lets go at 4', 'lets go at 12']);
});

test('a program that has ended gives nothing back', async () => {
  const { clock, did, stop } = program();
  stop();
  await clock.advance(60_000);
  assert.deepEqual([did, clock.waiting], [[], 0]);
});

test('the heap of an idle program is smaller after a burst, and of a busy one as large as before', () => {
  const module = new URL('../../../src/run/give-back.ts', import.meta.url).href;
  const source = `
    import { getHeapStatistics } from 'node:v8';
    const load = (name) => import(name);
    const { giveBackWhenIdle } = await load('${module}');
    let now = 0;
    let due = () => {};
    const clock = { now: () => now, after: (ms, fire) => ((due = () => { now += ms; fire(); }), () => {}) };
    giveBackWhenIdle(clock);
    let held = [];
    const burst = () => { for (let n = 0; n < 1_000_000; n++) held.push({ n }); held = held.filter((_, at) => at % 1000 === 0); };
    const size = () => getHeapStatistics().total_heap_size >> 20;
    const sizes = {};
    burst();
    sizes.burst = size();
    while (process.cpuUsage().user < 1_000_000);
    due();
    sizes.busy = size();
    due();
    sizes.idle = size();
    console.log(JSON.stringify(sizes));
  `;
  const printed = execFileSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
  const sizes = JSON.parse(printed);
  assert.ok(sizes.burst > 30, printed);
  assert.ok(sizes.busy > 30, `a program that just worked was stopped for a collection: ${printed}`);
  assert.ok(sizes.idle < 16, printed);
});
