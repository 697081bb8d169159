/**
 * Durations as text: whole numbers with units, largest first, each unit once, such as `90s` or `1h30m`. Nothing else:
 * `90`, `1.5h`, `1h 5m` and `30m1h` are refused, since each has been read as two different times by somebody.
 */

const units = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
  ['ms', 1],
] as const;
const shape = /^(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?$/;

/** Reads a duration; milliseconds, or undefined when the text is not one. `0` alone is a duration too. */
export function parseDuration(text: string): number | undefined {
  if (text === '0') return 0;
  const found = text === '' ? null : shape.exec(text);
  if (found === null) return undefined;
  return units.reduce((sum, [, size], index) => sum + Number(found[index + 1] ?? 0) * size, 0);
}

/** Writes milliseconds so that `parseDuration` gives them back: `5400000` is `1h30m`. Whole days are written in hours. */
export function printDuration(ms: number): string {
  let rest = Math.round(ms);
  let text = '';
  for (const [unit, size] of units) {
    if (unit === 'd') continue;
    const count = Math.floor(rest / size);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * size;
  }
  return text === '' ? '0s' : text;
}
