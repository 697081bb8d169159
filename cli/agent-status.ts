import { type Message, withCaller } from './caller.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { output, text } from './flags.ts';
import { jsonLine } from './json.ts';
import { agentAdmin } from './socket-choice.ts';
import { block, table } from './table.ts';

export const agentStatus = command({
  summary: 'Show how the agent of this node stands and how long it can last alone',
  about:
    'Asks the agent on its admin socket: whether it can reach its server, how far it has followed, what it keeps, until when it can serve should the server be away from now on, and which calls of workloads it refused last. Exit code 1 when the server cannot be used.',
  flags: {
    adminSocket: text('PATH', "The agent's admin socket", {
      also: ['socketpath'],
      env: 'MUTUAL_AGENT_ADMIN_SOCKET',
      defaultText: '.mutual/agent/private/admin.sock',
    }),
    output,
  },
  examples: [['mutual agent status', 'Before a server is taken down for a while']],
  async run(values, ports) {
    const status: Message = await withCaller(agentAdmin, values.adminSocket, ports, (caller) =>
      caller.call('mutual.agent.v1.Status', 'GetStatus', {}),
    );
    const exit = status.outage === '' ? 0 : 1;
    if (values.output === 'json') {
      ports.out(jsonLine(status));
      return exit;
    }
    const moment = (unixSeconds: string | number): string | undefined =>
      Number(unixSeconds) === 0 ? undefined : printDeadline(Number(unixSeconds), ports.clock.now());
    ports.out(
      block(ports, [
        ['Agent', status.id === '' ? status.node : `${status.id} (${status.node})`],
        ['Own SVID until', moment(status.svid_expires_at)],
        ['Server', status.outage === '' ? 'reachable' : status.outage],
        ['Changes', status.sync === 'push' ? `pushed, at position ${status.position}` : 'polled'],
        ['Up to date', printDeadline(Number(status.last_sync), ports.clock.now())],
        ['Entries', String(status.entries)],
        ['X509-SVIDs', String(status.x509_svids)],
        ['Serves all until', moment(status.serves_all_until)],
        ['Serves some until', moment(status.serves_some_until)],
        ['JWT-SVIDs', String(status.jwt_svids)],
        ['JWT-SVIDs until', moment(status.jwts_until)],
      ]),
    );
    if (status.refusals.length > 0) {
      const rows = status.refusals.map((one: Message) => [
        printDeadline(Number(one.at), ports.clock.now()),
        one.broker || `pid ${one.pid}, uid ${one.uid}`,
        one.method.slice(one.method.lastIndexOf('/') + 1),
        one.message,
      ]);
      ports.out(`\n${table(ports, ['REFUSED', 'CALLER', 'CALL', 'WHY'], rows)}`);
    }
    return exit;
  },
});
