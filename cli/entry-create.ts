import { withAdmin } from './admin.ts';
import { reportFailed, succeeded } from './batch.ts';
import { command } from './command.ts';
import { entriesFromJson } from './entry-data.ts';
import { entryFlags, entryMessage, onlyData } from './entry-flags.ts';
import { entryBlock, selectorTexts, wireId } from './entry-text.ts';
import { toggle } from './flags.ts';
import { readJson } from './input-file.ts';
import { jsonLine } from './json.ts';

export const entryCreate = command({
  summary: 'Register which workloads get a SPIFFE ID',
  about:
    'A process below the agent --parent-id that shows every --selector gets SVIDs for --spiffe-id. With --node the entry names a set of agents instead: those that show the selectors. Needed are --spiffe-id, --selector, and --parent-id or --node, or else --data.',
  flags: { ...entryFlags, node: toggle("The entry is an alias for agents: its parent is the server's own ID") },
  examples: [
    [
      'mutual entry create --parent-id spiffe://example.org/local --spiffe-id spiffe://example.org/web --selector unix:user:www-data',
      'Give the processes of a user an identity',
    ],
    [
      'mutual entry list --output json | mutual entry create --admin-socket /other/api.sock --data -',
      'Copy entries to another server',
    ],
  ],
  async run({ node, ...values }, ports) {
    if (values.data !== undefined) onlyData(values, node);
    const entries =
      values.data === undefined
        ? [entryMessage(values, node, node ? ['spiffeId', 'selector'] : ['spiffeId', 'parentId', 'selector'])]
        : entriesFromJson(await readJson(values.data, '--data', ports));
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('entry', 'BatchCreateEntry', { entries }),
    );
    if (values.output === 'json') ports.out(jsonLine(response));
    else
      ports.out(
        succeeded(response.results)
          .map(({ entry }) => entryBlock(entry, ports))
          .join('\n'),
      );
    const name = (index: number): string => {
      const { spiffe_id, parent_id, selectors } = entries[index];
      const existing = response.results[index].entry?.id;
      return `${wireId(spiffe_id)} under ${wireId(parent_id)} for ${selectorTexts(selectors).join(' ')}${existing ? ` (entry ${existing})` : ''}`;
    };
    return reportFailed(response.results, 'entry not created', name, ports);
  },
});
