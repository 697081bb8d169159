/**
 * npm run bench [-- --quick] [-- --only TEXT] [-- --repeat N] [-- --workers N] [-- --scale [--agents N]]: our programs and Go's SPIRE on this machine in one run,
 * with the same load generator (test/peers/go/load, grpc-go over the public APIs, so that it favours nobody). Each row is
 * measured in turn, A B A B; the table shows medians, their spread and how many times better ours is, bench/results.json
 * all figures. SPIRE runs as delivered but for its rate limits, which are off, as are ours.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makePlace, withPlace } from '../test/peers/support/place.ts';
import { installPeers } from '../tools/peers-install.ts';
import { installBuild } from './installed.ts';
import { describeMachine } from './machine.ts';
import { type Make, makes, type Result, summarise } from './result.ts';
import { type Effort, rows, scaleRows } from './rows.ts';
import { type Side, startSide } from './side.ts';
import { simulations } from './simulations.ts';
import { printTable } from './table.ts';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    repeat: { type: 'string' },
    workers: { type: 'string', default: '0' },
    scale: { type: 'boolean', default: false },
    agents: { type: 'string', default: '10000' },
  },
});
const effort: Effort = values.quick
  ? { repeat: 1, seconds: 1, warm: 0.5, entries: 1000, rounds: 1 }
  : { repeat: 3, seconds: 3, warm: 1, entries: 10_000, rounds: 5 };
const repeat = values.repeat === undefined ? effort.repeat : Number(values.repeat);
if (!Number.isInteger(repeat) || repeat < 1)
  throw new Error(`--repeat "${values.repeat}" is not a number of 1 or more`);

/** Signing workers of our server. */
const workers = Number(values.workers);
if (!Number.isInteger(workers) || workers < 0)
  throw new Error(`--workers "${values.workers}" is not a number of 0 or more`);

/** How many agents are simulated. */
const agents = Number(values.agents);
if (!Number.isInteger(agents) || agents < 1)
  throw new Error(`--agents "${values.agents}" is not a number of 1 or more`);
if (values.scale && 'simulations'.includes(values.only)) {
  // Ours alone, so that neither program's peers are there beside it.
  await withPlace((place) =>
    simulations(place, agents, ([what, figure]) => process.stdout.write(`${what}: ${figure}\n`)),
  );
  if (values.only !== '') process.exit();
}

const missing = await installPeers(['spire-server', 'spire-agent', 'peer-load']);
if (missing.length > 0) throw new Error(`the bench needs ${missing.join(', ')} (npm run peers:install)`);
const place = makePlace();
try {
  const command = await installBuild(place.path('installed'));
  const sides: Record<Make, Side> = {
    spire: await startSide('spire', place, command),
    mutual: await startSide('mutual', place, command, { workers }),
  };
  const results: Result[] = [];
  for (const row of values.scale ? scaleRows : rows) {
    if (!row.name.includes(values.only)) continue;
    process.stderr.write(`bench: ${row.name}`);
    const figures: Record<Make, number[][]> = { spire: [], mutual: [] };
    try {
      for (let n = 0; n < (row.once ? 1 : repeat); n++)
        for (const make of makes) {
          figures[make].push(await row.measure(sides[make], effort));
          process.stderr.write('.');
        }
    } catch (error) {
      // On a machine too busy for one row the others are worth having.
      process.stderr.write(` failed: ${error instanceof Error ? error.message : error}\n`);
      process.exitCode = 1;
      continue;
    }
    process.stderr.write('\n');
    results.push(...summarise(row, figures));
  }
  const machine = describeMachine();
  printTable(results, machine);
  const report = { ...machine, quick: values.quick, repeat, results };
  if (values.only === '' && !values.scale && workers === 0)
    writeFileSync(join(import.meta.dirname, 'results.json'), `${JSON.stringify(report, null, 2)}\n`);
} finally {
  await place.close();
}
