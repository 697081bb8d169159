import { command } from './command.ts';
import { jsonLine } from './json.ts';
import { callForAgent, oneAgentFlags } from './one-agent.ts';

export const agentBan = command({
  summary: 'Shut an agent out for good',
  about: 'Its SVID is refused at once and it cannot attest again. "mutual agent evict" lifts the ban.',
  flags: oneAgentFlags,
  async run(values, ports) {
    const response = await callForAgent('BanAgent', values.spiffeId, values.adminSocket, ports);
    ports.out(values.output === 'json' ? jsonLine(response) : `Banned agent ${values.spiffeId}\n`);
    return 0;
  },
});
