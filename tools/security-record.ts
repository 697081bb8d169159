/**
 * docs/security-record.md: each security bug that the programs of this field have had, and the tests that would find it
 * here. A test names the bug; a bug without a test says why.
 */
import type { Source } from './laws/source.ts';
import { readTable } from './table.ts';

export interface SecurityBug {
  /** As the names of tests carry it. */
  readonly id: string;
  readonly where: string;
  readonly bug: string;
  /** Why it cannot be here, or is not looked for; empty for one with tests. */
  readonly why: string;
}

export function readSecurityRecord(): SecurityBug[] {
  return readTable('security-record.tsv').map(([id = '', where = '', bug = '', why = '']) => ({ id, where, bug, why }));
}

/** By bug, the test files with a test that is named after it. */
export function caughtBy(record: readonly SecurityBug[], sources: readonly Source[]): Map<string, string[]> {
  const tests = sources.filter(({ path }) => /^test\/(?!repo\/|support\/)/.test(path));
  return new Map(
    record.map(({ id }) => {
      const name = new RegExp(`(?<![\\w-])${id.replace(/[.*+?^$()[\]{}|\\]/g, '\\$&')}(?![\\w-]|\\.\\d)`);
      return [id, tests.filter(({ code }) => name.test(code)).map(({ path }) => path)];
    }),
  );
}

export function securityRecordPage(record: readonly SecurityBug[], sources: readonly Source[]): string {
  const caught = caughtBy(record, sources);
  const link = (path: string): string => `[${path.replace(/^test\//, '').replace(/(\.test)?\.ts$/, '')}](../${path})`;
  return [
    '# The security record of the field',
    '',
    'Every security bug that programs of this kind are known to have had, and the tests that would find it here: they carry its',
    'id in their names. `npm test` runs all of them but those under `test/peers`, which `npm run test:peers` runs.',
    '',
    '| id | where it was | the bug | test |',
    '|---|---|---|---|',
    ...record.map(
      ({ id, where, bug, why }) =>
        `| ${id} | ${where} | ${bug} | ${(caught.get(id) ?? []).map(link).join(', ') || why} |`,
    ),
    '',
  ].join('\n');
}
