/** Commands that talk to the server or, with `--agent`, to the agent: its admin socket has the same services. */
import { type Message, withCaller } from './caller.ts';
import { output, text, toggle } from './flags.ts';
import type { Ports } from './ports.ts';
import { agentAdmin, serverAdmin } from './socket-choice.ts';

export const eitherFlags = {
  agent: toggle('Talk to the agent in place of the server'),
  adminSocket: text('PATH', 'The admin socket', {
    also: ['socketpath'],
    env: 'MUTUAL_ADMIN_SOCKET, or MUTUAL_AGENT_ADMIN_SOCKET with --agent',
    defaultText: '.mutual/server/private/api.sock, or .mutual/agent/private/admin.sock with --agent',
  }),
  output,
};

/** Calls a service that both have under different names. */
export function callEither(
  values: { agent: boolean; adminSocket: string | undefined },
  services: { server: string; agent: string },
  method: string,
  request: object,
  ports: Ports,
): Promise<Message> {
  const service = values.agent ? services.agent : services.server;
  return withCaller(values.agent ? agentAdmin : serverAdmin, values.adminSocket, ports, (caller) =>
    caller.call(service, method, request),
  );
}
