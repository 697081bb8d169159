import { command } from './command.ts';
import { jsonLine } from './json.ts';
import { callForAgent, oneAgentFlags } from './one-agent.ts';

export const agentEvict = command({
  summary: 'Forget an agent, which may attest again',
  about: 'Its SVID is refused at once. A ban of it is lifted.',
  flags: oneAgentFlags,
  async run(values, ports) {
    const response = await callForAgent('DeleteAgent', values.spiffeId, values.adminSocket, ports);
    ports.out(values.output === 'json' ? jsonLine(response) : `Evicted agent ${values.spiffeId}\n`);
    return 0;
  },
});
