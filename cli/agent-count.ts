import { withAdmin } from './admin.ts';
import { agentFilter, agentFilterFlags } from './agent-filter.ts';
import { command } from './command.ts';
import { jsonLine } from './json.ts';
import { count } from './table.ts';

export const agentCount = command({
  summary: 'Count attested agents',
  flags: agentFilterFlags,
  async run(values, ports) {
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('agent', 'CountAgents', { filter: agentFilter(values) }),
    );
    ports.out(
      values.output === 'json' ? jsonLine(response) : `${count(response.count, 'attested agent', 'attested agents')}\n`,
    );
    return 0;
  },
});
