import { Fault, quote } from '../src/errors.ts';
import { withAdmin } from './admin.ts';
import { reportFailed, succeeded } from './batch.ts';
import { command } from './command.ts';
import { adminSocket, many, output, text, toggle } from './flags.ts';
import { readJson } from './input-file.ts';
import { jsonLine } from './json.ts';
import { printCovered, revokeAround } from './revocation.ts';

export const entryDelete = command({
  summary: 'Delete registration entries',
  flags: {
    entryId: many(text('ID', 'An entry')),
    file: text('FILE', 'Entry IDs as JSON, {"ids": [...]}; - reads standard input'),
    revoke: toggle('Revoke what was issued for them, and wait until every agent knows'),
    output,
    adminSocket,
  },
  async run(values, ports) {
    if ((values.file === undefined) === (values.entryId.length === 0)) {
      throw new Fault(
        'usage/invalid',
        values.file === undefined ? 'required flag is missing: --entry-id ID' : '--file and --entry-id are both given',
        {
          hint: 'Give --entry-id, once or more, or --file.',
        },
      );
    }
    const ids = values.file === undefined ? values.entryId : idsFromJson(await readJson(values.file, '--file', ports));
    const remove = () =>
      withAdmin(values.adminSocket, ports, (admin) => admin.call('entry', 'BatchDeleteEntry', { ids }));
    if (values.revoke) {
      const targets = ids.map((entry_id) => ({ entry_id }));
      const { result, covered } = await revokeAround(targets, values.adminSocket, ports, remove);
      if (values.output === 'pretty')
        for (const { id } of succeeded(result.results)) ports.out(`Deleted entry ${id}\n`);
      const exit = printCovered(covered, values.output, ports);
      return reportFailed(result.results, 'entry not deleted', (index) => ids[index]!, ports) || exit;
    }
    const response = await remove();
    if (values.output === 'json') ports.out(jsonLine(response));
    else for (const { id } of succeeded(response.results)) ports.out(`Deleted entry ${id}\n`);
    return reportFailed(response.results, 'entry not deleted', (index) => ids[index]!, ports);
  },
});

function idsFromJson(value: unknown): readonly string[] {
  const ids = typeof value === 'object' && value !== null ? (value as { ids?: unknown }).ids : undefined;
  if (!Array.isArray(ids) || ids.length === 0 || !ids.every((id) => typeof id === 'string' && id !== '')) {
    throw new Fault('input/invalid', `--file: ${quote(value)} is not a list of entry IDs`, {
      hint: 'Write {"ids": ["ID", ...]}.',
    });
  }
  return ids;
}
