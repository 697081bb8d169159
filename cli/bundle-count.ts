import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { adminSocket, output } from './flags.ts';
import { jsonLine } from './json.ts';
import { count } from './table.ts';

export const bundleCount = command({
  summary: 'Count trust bundles',
  about: "The server's own is counted too.",
  flags: { output, adminSocket },
  async run(values, ports) {
    const response = await withAdmin(values.adminSocket, ports, (admin) => admin.call('bundle', 'CountBundles', {}));
    ports.out(values.output === 'json' ? jsonLine(response) : `${count(response.count, 'bundle', 'bundles')}\n`);
    return 0;
  },
});
