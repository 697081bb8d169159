import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { entryFilter, entryFilterFlags } from './entry-filter.ts';
import { jsonLine } from './json.ts';
import { count } from './table.ts';

export const entryCount = command({
  summary: 'Count registration entries',
  flags: entryFilterFlags,
  async run(values, ports) {
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('entry', 'CountEntries', { filter: entryFilter(values) }),
    );
    ports.out(
      values.output === 'json'
        ? jsonLine(response)
        : `${count(response.count, 'registration entry', 'registration entries')}\n`,
    );
    return 0;
  },
});
