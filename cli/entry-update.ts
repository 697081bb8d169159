import { Fault } from '../src/errors.ts';
import { withAdmin } from './admin.ts';
import { reportFailed, succeeded } from './batch.ts';
import { command } from './command.ts';
import { entriesFromJson } from './entry-data.ts';
import { entryFlags, entryMessage, onlyData } from './entry-flags.ts';
import { entryBlock, wireId } from './entry-text.ts';
import { readJson } from './input-file.ts';
import { jsonLine } from './json.ts';

export const entryUpdate = command({
  summary: 'Replace a registration entry',
  about:
    'The whole entry --entry-id becomes what the flags say: a flag that is left out sets its field back to the default. Needed are --entry-id, --spiffe-id, --parent-id and --selector, or else --data.',
  flags: entryFlags,
  examples: [
    [
      'mutual entry update --entry-id web-1 --parent-id spiffe://example.org/local --spiffe-id spiffe://example.org/web --selector unix:uid:33',
      'Change the selectors of an entry',
    ],
  ],
  async run(values, ports) {
    if (values.data !== undefined) onlyData(values, false);
    const entries =
      values.data === undefined
        ? [entryMessage(values, false, ['entryId', 'spiffeId', 'parentId', 'selector'])]
        : entriesFromJson(await readJson(values.data, '--data', ports));
    for (const [index, { id }] of entries.entries()) {
      if (id === '')
        throw new Fault('input/invalid', `entries[${index}] has no entry_id`, { hint: 'Say which entry to update.' });
    }
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('entry', 'BatchUpdateEntry', { entries }),
    );
    if (values.output === 'json') ports.out(jsonLine(response));
    else
      ports.out(
        succeeded(response.results)
          .map(({ entry }) => entryBlock(entry, ports))
          .join('\n'),
      );
    return reportFailed(
      response.results,
      'entry not updated',
      (index) => `${entries[index].id} (${wireId(entries[index].spiffe_id)})`,
      ports,
    );
  },
});
