import { command } from './command.ts';
import { jsonLine } from './json.ts';
import { callForAgent, oneAgentFlags, revokeToo } from './one-agent.ts';
import { printCovered, revokeAround } from './revocation.ts';

export const agentEvict = command({
  summary: 'Forget an agent, which may attest again',
  about: 'Its SVID is refused at once. A ban of it is lifted.',
  flags: { ...oneAgentFlags, revoke: revokeToo },
  async run(values, ports) {
    const evict = () => callForAgent('DeleteAgent', values.spiffeId, values.adminSocket, ports);
    if (values.revoke) {
      const target = { agent_id: values.spiffeId };
      const { covered } = await revokeAround([target], values.adminSocket, ports, evict);
      if (values.output === 'pretty') ports.out(`Evicted agent ${values.spiffeId}\n\n`);
      return printCovered(covered, values.output, ports);
    }
    const response = await evict();
    ports.out(values.output === 'json' ? jsonLine(response) : `Evicted agent ${values.spiffeId}\n`);
    return 0;
  },
});
