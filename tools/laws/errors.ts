/**
 * Why: a code is a contract: scripts match it, docs/errors.md explains it, and it is never used again for something else.
 * So each code has words, and one that nothing throws is either dead or misspelt somewhere.
 */
import { faults } from '../../src/errors.ts';
import { findAll, isProgram, type Law } from './source.ts';

export const errors: Law = {
  name: 'errors',
  check(sources) {
    const used = new Set<string>();
    for (const source of sources.filter(isProgram)) {
      if (source.path === 'src/errors.ts') continue;
      for (const { match } of findAll(source.code, /(['"])([a-z]+\/[a-z-]+)\1/g)) used.add(match[2]!);
    }
    const table = sources.find(({ path }) => path === 'src/errors.ts');
    return Object.entries(faults).flatMap(([code, { means }]) => {
      const line = table?.text.slice(0, table.text.indexOf(`'${code}'`)).split('\n').length ?? 1;
      const refuse = (says: string) => [{ path: 'src/errors.ts', line, says }];
      if (!/^[A-Z].*\.$/.test(means)) return refuse(`the meaning of ${code} is not a sentence`);
      // system/failed is what everything unexpected becomes, in src/errors.ts itself.
      return used.has(code) || code === 'system/failed' ? [] : refuse(`nothing throws ${code}`);
    });
  },
};
