/** Text for people: tables with a head, and blocks of labelled lines. No borders, so that columns copy and grep well. */
import Table from 'cli-table3';
import type { Ports } from './ports.ts';
import { visible } from './visible.ts';

const noBorders = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

/** A table; lines end without blanks. A cell may have several lines. */
export function table(ports: Ports, head: readonly string[], rows: readonly (readonly string[])[]): string {
  const grid = new Table({
    head: head.map((title) => ports.style('bold', title)),
    chars: noBorders,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) grid.push(row.map(visible));
  return `${grid.toString().replace(/[ \t]+$/gm, '')}\n`;
}

/** Labelled lines; a list takes a line an item, and an absent or empty value none. */
export function block(
  ports: Ports,
  rows: readonly (readonly [label: string, value: string | readonly string[] | undefined])[],
): string {
  const shown = rows.flatMap(([label, value]) => {
    const values = typeof value === 'string' ? [value] : (value ?? []);
    return values.filter((each) => each !== '').map((each, index) => [index === 0 ? label : '', each] as const);
  });
  const width = Math.max(...rows.map(([label]) => label.length));
  return shown.map(([label, value]) => `${ports.style('bold', label.padEnd(width))}  ${visible(value)}\n`).join('');
}

/** `1 entry`, `2 entries`. */
export function count(number: number, one: string, several: string): string {
  return `${number} ${number === 1 ? one : several}`;
}
