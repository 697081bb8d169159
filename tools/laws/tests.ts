/**
 * Why: a skipped test is read as a passed one, a left-over `only` hides all others, and a program that reaches for test
 * code ships it. Tests say what they prove or are not there.
 */
import { importsOf, targetOf } from './imports.ts';
import { findAll, type Law } from './source.ts';

const off = /\b(?:test|it|describe|suite|t)\s*\.\s*(?:skip|todo|only)\b|[{,]\s*(?:skip|todo|only)\s*:/g;

export const tests: Law = {
  name: 'tests',
  check: (sources) =>
    sources.flatMap((source) => {
      const { path, bare } = source;
      if (path.startsWith('test/')) {
        return [...findAll(bare, off)].map(({ line, match }) => ({
          path,
          line,
          says: `${match[0].trim()}: a test runs or is not there`,
        }));
      }
      if (/^(tools|bench)\//.test(path)) return [];
      return importsOf(source)
        .filter(({ to }) => targetOf(path, to)?.startsWith('test/'))
        .map(({ line, to }) => ({ path, line, says: `imports ${to}: no source uses test code` }));
    }),
};
