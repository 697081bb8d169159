import { command } from './command.ts';
import { jsonLine } from './json.ts';
import { callForAgent, oneAgentFlags, revokeToo } from './one-agent.ts';
import { printCovered, revokeAround } from './revocation.ts';

export const agentBan = command({
  summary: 'Shut an agent out for good',
  about: 'Its SVID is refused at once and it cannot attest again. "mutual agent evict" lifts the ban.',
  flags: { ...oneAgentFlags, revoke: revokeToo },
  async run(values, ports) {
    const ban = () => callForAgent('BanAgent', values.spiffeId, values.adminSocket, ports);
    if (values.revoke) {
      const target = { agent_id: values.spiffeId };
      const { covered } = await revokeAround([target], values.adminSocket, ports, ban);
      if (values.output === 'pretty') ports.out(`Banned agent ${values.spiffeId}\n\n`);
      return printCovered(covered, values.output, ports);
    }
    const response = await ban();
    ports.out(values.output === 'json' ? jsonLine(response) : `Banned agent ${values.spiffeId}\n`);
    return 0;
  },
});
