/** Calls to the server's admin socket, with the services by their short names, and lists read to their end. */
import type { Caller, Message } from './caller.ts';
import { withCaller } from './caller.ts';
import type { Ports } from './ports.ts';
import { serverAdmin } from './socket-choice.ts';

const services = {
  agent: 'spire.api.server.agent.v1.Agent',
  bundle: 'spire.api.server.bundle.v1.Bundle',
  entry: 'spire.api.server.entry.v1.Entry',
  svid: 'spire.api.server.svid.v1.SVID',
  federation: 'spire.api.server.trustdomain.v1.TrustDomain',
  logger: 'spire.api.server.logger.v1.Logger',
  debug: 'spire.api.server.debug.v1.Debug',
  authority: 'spire.api.server.localauthority.v1.LocalAuthority',
  rotation: 'mutual.server.v1.Rotation',
} as const;

export interface Admin {
  call(service: keyof typeof services, method: string, request: object): Promise<Message>;
  /** Reads every page; `field` names the list in the answers. */
  all(service: keyof typeof services, method: string, request: object, field: string): Promise<Message[]>;
}

/** Items asked for at a time: well under the 4 MiB a message may have. */
const pageSize = 500;

/** Does work with the server that `--admin-socket`, MUTUAL_ADMIN_SOCKET or the default names. */
export async function withAdmin<T>(
  given: string | undefined,
  ports: Ports,
  work: (admin: Admin) => Promise<T>,
): Promise<T> {
  return withCaller(serverAdmin, given, ports, (caller) => work(adminOf(caller)));
}

export function adminOf(caller: Pick<Caller, 'call'>): Admin {
  return {
    call: (service, method, request) => caller.call(services[service], method, request),
    async all(service, method, request, field) {
      const items: Message[] = [];
      let token = '';
      do {
        const page = await caller.call(services[service], method, {
          ...request,
          page_size: pageSize,
          page_token: token,
        });
        items.push(...page[field]);
        token = page.next_page_token;
      } while (token !== '');
      return items;
    },
  };
}
