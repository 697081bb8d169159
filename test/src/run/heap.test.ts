/** What V8 takes beyond what lives, seen from a process of its own: the bounds are a process's, not a value's. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

const heap = new URL('../../../src/run/heap.ts', import.meta.url).href;

/** Makes objects of which many live for a while, and gives the bytes of the nursery at the end. */
function nurseryAfterABurst(prelude: string): number {
  const program = `
    import { getHeapSpaceStatistics } from 'node:v8';
    ${prelude}
    const held = [];
    for (let turn = 0; turn < 200; turn++) {
      for (let n = 0; n < 10_000; n++) held[(turn * 10_000 + n) % 50_000] = { n, text: 'x' + n };
      await new Promise(setImmediate);
    }
    console.log(getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space').space_size);
  `;
  return Number(execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' }));
}

test('a burst of objects leaves the nursery within its bound, where V8 alone would let it grow', () => {
  const bounded = nurseryAfterABurst(`import { boundHeap } from '${heap}'; boundHeap(); boundHeap();`);
  // A collection may be over before it is told of: then the nursery has doubled once more.
  assert.ok(bounded <= 64 << 20, `${bounded} bytes`);
  assert.ok(nurseryAfterABurst('') > bounded);
});

test('an idle program gives back what a burst left behind, a busy one does not, nor one with little to give', () => {
  const program = `
    import { getHeapStatistics } from 'node:v8';
    import { setTimeout as pause } from 'node:timers/promises';
    const load = (name) => import(name);
    const { giveBackWhenIdle } = await load('${heap}');
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
    burst();
    due();
    due();
    sizes.soon = size();
    now += 60_000;
    due();
    sizes.later = size();
    console.log(JSON.stringify(sizes));
  `;
  const printed = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  const sizes = JSON.parse(printed);
  assert.ok(sizes.burst > 30, printed);
  assert.ok(sizes.busy > 30, `a program that just worked was stopped for a collection: ${printed}`);
  assert.ok(sizes.idle < 16, printed);
  assert.ok(sizes.soon > 30, `twice in a minute: ${printed}`);
  assert.ok(sizes.later < 16, printed);
});
