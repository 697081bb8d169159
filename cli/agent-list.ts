import { withAdmin } from './admin.ts';
import { agentFilter, agentFilterFlags, agentTable } from './agent-filter.ts';
import { command } from './command.ts';
import { jsonLine } from './json.ts';

export const agentList = command({
  summary: 'List attested agents',
  flags: agentFilterFlags,
  async run(values, ports) {
    const agents = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.all('agent', 'ListAgents', { filter: agentFilter(values) }, 'agents'),
    );
    if (values.output === 'json') ports.out(jsonLine({ agents, next_page_token: '' }));
    else ports.out(agents.length > 0 ? agentTable(agents, ports) : 'No attested agents\n');
    return 0;
  },
});
