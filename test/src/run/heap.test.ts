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
