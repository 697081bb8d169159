import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { entryFilterFlags, findEntries } from './entry-filter.ts';
import { entryTable, sortEntries } from './entry-text.ts';
import { jsonLine } from './json.ts';

export const entryList = command({
  summary: 'List registration entries, one a line',
  flags: entryFilterFlags,
  async run(values, ports) {
    const entries = sortEntries(await withAdmin(values.adminSocket, ports, (admin) => findEntries(admin, values)));
    if (values.output === 'json') ports.out(jsonLine({ entries, next_page_token: '' }));
    else if (entries.length > 0) ports.out(entryTable(entries, ports));
    else ports.out('No entries\n');
    return 0;
  },
});
