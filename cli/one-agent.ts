/** Calls about one agent, named by its SPIFFE ID. */
import { Fault, quote } from '../src/errors.ts';
import { pathOf, type SpiffeId, trustDomainOf } from '../src/spiffe/id.ts';
import { withAdmin } from './admin.ts';
import type { Message } from './caller.ts';
import { adminSocket, id, output, required, toggle } from './flags.ts';
import type { Ports } from './ports.ts';

export const revokeToo = toggle('Revoke what it was issued, and wait until every agent knows');

export const oneAgentFlags = { spiffeId: required(id('SPIFFE-ID', "The agent's ID")), output, adminSocket };

/** Calls a method with the agent's ID. Throws `thing/missing` naming the agent. */
export async function callForAgent(
  method: string,
  agent: SpiffeId,
  socket: string | undefined,
  ports: Ports,
): Promise<Message> {
  try {
    return await withAdmin(socket, ports, (admin) =>
      admin.call('agent', method, { id: { trust_domain: trustDomainOf(agent), path: pathOf(agent) } }),
    );
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== 'thing/missing') throw error;
    throw new Fault('thing/missing', `there is no agent ${quote(agent)}`, {
      hint: 'See "mutual agent list".',
      cause: error,
    });
  }
}
