import type { Message } from './caller.ts';
import { command } from './command.ts';
import { printDeadline, printSeconds } from './duration.ts';
import { callEither, eitherFlags } from './either-program.ts';
import { wireId } from './entry-text.ts';
import { jsonLine } from './json.ts';
import { block, table } from './table.ts';

const services = { server: 'spire.api.server.debug.v1.Debug', agent: 'spire.agent.debug.v1.Debug' };

export const debugInfo = command({
  summary: 'Show uptime, counts and the SVID of the server or the agent',
  flags: eitherFlags,
  async run(values, ports) {
    const info = await callEither(values, services, 'GetInfo', {}, ports);
    if (values.output === 'json') {
      ports.out(jsonLine(info));
      return 0;
    }
    const counts: [string, string][] = values.agent
      ? [
          ['Last synchronised', printDeadline(Number(info.last_sync_success), ports.clock.now())],
          ['X509-SVIDs', String(info.cached_x509_svids_count)],
          ['JWT-SVIDs', String(info.cached_jwt_svids_count)],
        ]
      : [
          ['Agents', String(info.agents_count)],
          ['Entries', String(info.entries_count)],
          ['Federated bundles', String(info.federated_bundles_count)],
        ];
    ports.out(block(ports, [['Uptime', printSeconds(info.uptime)], ...counts]));
    if (info.svid_chain.length > 0) {
      const rows = info.svid_chain.map((each: Message) => [
        wireId(each.id),
        each.subject,
        printDeadline(Number(each.expires_at), ports.clock.now()),
      ]);
      ports.out(`\n${table(ports, ['SVID CHAIN', 'SUBJECT', 'EXPIRES'], rows)}`);
    }
    return 0;
  },
});
