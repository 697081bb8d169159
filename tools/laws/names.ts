/**
 * Why: the path is the address. A file named after what it holds is found without a search; one named util or helper is
 * where things go that nobody named, and everything comes to depend on it.
 */
import type { Law } from './source.ts';

const empty = new Set(['util', 'utils', 'helper', 'helpers', 'common', 'base', 'manager', 'misc']);

export const names: Law = {
  name: 'names',
  check: (sources) =>
    sources.flatMap(({ path }) =>
      path.split('/').flatMap((part, index, parts) => {
        const plain = index === parts.length - 1 ? part.replace(/(\.test)?\.(ts|js|mjs)$/, '') : part;
        const word = plain.split(/[-._]/).find((one) => empty.has(one.toLowerCase()));
        if (word !== undefined || plain === 'index')
          return [{ path, line: 1, says: `"${word ?? plain}" says nothing; name it after what it holds` }];
        return /^[a-z0-9]+(?:[-.][a-z0-9]+)*$/.test(plain)
          ? []
          : [{ path, line: 1, says: `"${plain}" is not kebab-case` }];
      }),
    ),
};
