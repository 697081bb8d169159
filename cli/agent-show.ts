import { agentBlock } from './agent-filter.ts';
import { command } from './command.ts';
import { jsonLine } from './json.ts';
import { callForAgent, oneAgentFlags } from './one-agent.ts';

export const agentShow = command({
  summary: 'Show one attested agent',
  flags: oneAgentFlags,
  async run(values, ports) {
    const agent = await callForAgent('GetAgent', values.spiffeId, values.adminSocket, ports);
    ports.out(values.output === 'json' ? jsonLine(agent) : agentBlock(agent, ports));
    return 0;
  },
});
