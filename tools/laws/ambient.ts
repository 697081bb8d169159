/**
 * Why: what takes a Clock and a Random can be driven by a test to the millisecond, and "when to renew" stays a function of
 * times. One `Date.now()` in the middle breaks that, and nobody sees it until a test must sleep. So time, timers,
 * randomness and the process are named only in src/run and in the main files, which hand them in.
 */
import { findAll, isProgram, type Law } from './source.ts';

/** `setImmediate` is not here: a turn of the event loop is no time, and a driven clock lets it pass. */
const banned: readonly (readonly [RegExp, string])[] = [
  [/\bDate\s*\.\s*now\b/g, 'Date.now: take a Clock'],
  [/\bnew\s+Date\s*\(\s*\)/g, 'new Date(): take a Clock'],
  [/\bperformance\s*\.\s*now\b/g, 'performance.now: take a Clock'],
  [/(?<![\w$.])(?:setTimeout|setInterval)\s*\(/g, 'a timer: take a Clock and use after() or sleep()'],
  [/\bAbortSignal\s*\.\s*timeout\b/g, 'AbortSignal.timeout: take a Clock'],
  [/\bMath\s*\.\s*random\b/g, 'Math.random: take a Random'],
  [/(?<![\w$.])(?:randomBytes|randomUUID|randomInt|randomFillSync|getRandomValues)\s*\(/g, 'randomness: take a Random'],
  [/(?<![\w$.'"-])process\s*(?:\.|\[)/g, 'process: hand in what is needed of it from the main file'],
];
const modules = /from\s*(['"])(?:node:)?(timers|timers\/promises|process|perf_hooks)\1/g;

function mayBeAmbient(path: string): boolean {
  return path.startsWith('src/run/') || /^(cli|server|agent|sdk)\/main\.ts$/.test(path);
}

export const ambient: Law = {
  name: 'ambient',
  check: (sources) =>
    sources
      .filter((source) => isProgram(source) && !mayBeAmbient(source.path))
      .flatMap(({ path, bare, code }) => [
        ...banned.flatMap(([shape, says]) =>
          [...findAll(bare, shape)].map(({ line }) => ({ path, line, says: `uses ${says}` })),
        ),
        ...[...findAll(code, modules)].map(({ line, match }) => ({
          path,
          line,
          says: `imports node:${match[2]}: take a port of src/run`,
        })),
      ]),
};
