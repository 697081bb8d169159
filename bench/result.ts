/** What the bench found: medians, spread and ratio of each column of each row. */

/** The order within each round. */
export const makes = ['spire', 'mutual'] as const;
export type Make = (typeof makes)[number];

/** One figure that a row measures. */
export interface Column {
  readonly name: string;
  readonly unit: 'us' | 'ms' | '/s' | 'MB';
}

export interface Figure {
  readonly median: number;
  /** Largest less smallest, as a share of the median. */
  readonly spread: number;
  readonly all: readonly number[];
}

export interface Result {
  readonly row: string;
  readonly column: string;
  readonly unit: Column['unit'];
  readonly spire: Figure;
  readonly mutual: Figure;
  /** How many times better ours is: above 1 is better, whatever the unit. */
  readonly ratio: number;
}

function figure(all: readonly number[]): Figure {
  const sorted = [...all].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, spread: median === 0 ? 0 : (sorted.at(-1)! - sorted[0]!) / median, all };
}

/** The results of a row, one a column, from its figures round by round. */
export function summarise(
  row: { readonly name: string; readonly columns: readonly Column[] },
  figures: Readonly<Record<Make, readonly (readonly number[])[]>>,
): Result[] {
  return row.columns.map(({ name, unit }, at) => {
    const [spire, mutual] = makes.map((make) => figure(figures[make].map((round) => round[at]!))) as [Figure, Figure];
    const ratio = unit === '/s' ? mutual.median / spire.median : spire.median / mutual.median;
    return { row: row.name, column: name, unit, spire, mutual, ratio };
  });
}
