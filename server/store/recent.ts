/** The newest changes of the log in memory, so that followers cost the database nothing. */

import type { Change } from './store.ts';
import type { Sized } from './transaction.ts';

export interface Recent {
  /** The newest position known. */
  readonly newest: number;
  /** Takes changes in; those known already are skipped. Gives false, and takes nothing, when some are missing before them. */
  append(changes: readonly Sized[]): boolean;
  /** Begins anew at a position, forgetting all before it: when changes between were missed for good. */
  restart(position: number): void;
  /** Changes above `after`, at most `limit`; undefined when they are not all here, or `after` is ahead. */
  read(after: number, limit: number): readonly Change[] | undefined;
  onAppend(told: (position: number) => void): () => void;
}

/** A listener that throws does not keep the others from hearing. */
function tellAll(told: ReadonlySet<(position: number) => void>, position: number): void {
  let failure: unknown;
  for (const tell of [...told]) {
    try {
      tell(position);
    } catch (error) {
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
}

/**
 * Makes an empty memory of a log that ends at `newest`.
 * @param most how many changes to keep at most
 * @param mostBytes how much text of changes to keep at most, by the sizes given
 */
export function recentChanges(newest: number, most = 10_000, mostBytes = 32 * 1024 * 1024): Recent {
  // A queue in an array: what is before `start` is gone, and is cut off now and then.
  let kept: Sized[] = [];
  let start = 0;
  let bytes = 0;
  const told = new Set<(position: number) => void>();

  return {
    get newest() {
      return newest;
    },
    append(changes) {
      const fresh = changes.filter(({ change }) => change.position > newest);
      if (fresh.length === 0) return true;
      if (fresh[0]!.change.position !== newest + 1) return false;
      for (const one of fresh) {
        kept.push(one);
        bytes += one.size;
      }
      newest = fresh.at(-1)!.change.position;
      while (kept.length - start > most || (bytes > mostBytes && start < kept.length)) {
        bytes -= kept[start]!.size;
        start += 1;
      }
      if (start > most) {
        kept = kept.slice(start);
        start = 0;
      }
      tellAll(told, newest);
      return true;
    },
    restart(position) {
      kept = [];
      start = 0;
      bytes = 0;
      newest = position;
      tellAll(told, newest);
    },
    read(after, limit) {
      if (after > newest) return undefined;
      const first = newest - (kept.length - start) + 1;
      if (after + 1 < first) return undefined;
      const from = start + (after + 1 - first);
      return kept.slice(from, from + limit).map((one) => one.change);
    },
    onAppend(tell) {
      const own = (position: number): void => tell(position);
      told.add(own);
      return () => told.delete(own);
    },
  };
}
