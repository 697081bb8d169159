/** The compiled code that a start used, kept for the next one (bin/built.js). */
import type { Clock } from './clock.ts';
import { asBeforeBounds } from './heap.ts';

/** Whoever waits for the program is served first, milliseconds. */
const later = 500;

/** To be called when the program has started. Does nothing where the launcher has the code already, or keeps none. */
export function keepCompiled(clock: Clock): void {
  const keep = (globalThis as Record<symbol, unknown>)[Symbol.for('mutual.keepCompiled')];
  if (typeof keep !== 'function') return;
  // V8 takes no code that was stored under other flags than it is read under.
  clock.after(later, () => asBeforeBounds(() => keep()));
}
