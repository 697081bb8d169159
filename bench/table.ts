/** The table of the bench, for people. */
import Table from 'cli-table3';
import type { Machine } from './machine.ts';
import type { Figure, Result } from './result.ts';

const round = (value: number): string =>
  value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3).replace(/\.0+$|(\.\d*?)0+$/, '$1');

const cell = ({ median, spread, all }: Figure, unit: string): string =>
  `${round(median)} ${unit}${all.length > 1 ? ` ±${Math.round(spread * 50)} %` : ''}`;

/** Prints machine, versions and a line a result to standard output. */
export function printTable(results: readonly Result[], machine: Machine): void {
  const table = new Table({
    head: ['what', '', `SPIRE ${machine.spire}`, 'Mutual', 'times better'],
    colAligns: ['left', 'left', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  let last = '';
  for (const { row, column, unit, spire, mutual, ratio } of results) {
    table.push([row === last ? '' : row, column, cell(spire, unit), cell(mutual, unit), ratio.toFixed(2)]);
    last = row;
  }
  console.log(
    `${machine.date}  ${machine.cores} cores, ${machine.processor}, Linux ${machine.kernel}, Node ${machine.node}`,
  );
  console.log(table.toString());
  const slower = results.filter(({ ratio }) => ratio < 1);
  if (slower.length > 0) console.log(`behind SPIRE: ${slower.map(({ row, column }) => `${row} ${column}`).join('; ')}`);
}
