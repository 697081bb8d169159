import { Fault } from '../src/errors.ts';
import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { wireId } from './entry-text.ts';
import { adminSocket, output, seconds, toggle, withDefault } from './flags.ts';
import { jsonLine } from './json.ts';
import { count } from './table.ts';
import { visible } from './visible.ts';

export const agentPurge = command({
  summary: 'Forget agents whose SVIDs have long expired',
  about:
    'Only agents that can attest again are forgotten: one that joined by a token could not come back. Banned agents are kept.',
  flags: {
    expiredFor: {
      ...withDefault(seconds('How long ago their SVIDs must have expired'), 720 * 3600),
      defaultText: '720h',
    },
    dryRun: toggle('Only say which agents would be forgotten'),
    output,
    adminSocket,
  },
  async run(values, ports) {
    const before = Math.floor(ports.clock.now() / 1000) - values.expiredFor;
    const purged = await withAdmin(values.adminSocket, ports, async (admin) => {
      const filter = { by_can_reattest: { value: true }, by_banned: { value: false } };
      const agents = await admin.all(
        'agent',
        'ListAgents',
        { filter, output_mask: { x509svid_expires_at: true } },
        'agents',
      );
      const results = [];
      for (const { id, x509svid_expires_at } of agents) {
        if (Number(x509svid_expires_at) >= before) continue;
        const error = values.dryRun
          ? undefined
          : await admin.call('agent', 'DeleteAgent', { id }).then(() => undefined, refusal);
        results.push({
          agent_id: wireId(id),
          deleted: !values.dryRun && error === undefined,
          error,
          expired: Number(x509svid_expires_at),
        });
      }
      return results;
    });
    const failed = purged.filter(({ error }) => error !== undefined);
    if (values.output === 'json') {
      ports.out(
        jsonLine({ expired_agents: purged.map(({ agent_id, deleted, error }) => ({ agent_id, deleted, error })) }),
      );
    } else if (purged.length === 0) {
      ports.out('No agents to purge\n');
    } else {
      ports.out(`Found ${count(purged.length, 'expired agent', 'expired agents')}\n`);
      for (const { agent_id, deleted, expired } of purged) {
        ports.out(
          `${deleted ? 'Purged' : values.dryRun ? 'Would purge' : 'Kept'} ${agent_id}, expired ${printDeadline(expired, ports.clock.now())}\n`,
        );
      }
    }
    for (const { agent_id, error } of failed)
      ports.err(`error: agent not purged: ${agent_id}: ${visible(error ?? '')}\n`);
    return failed.length === 0 ? 0 : 1;
  },
});

function refusal(error: unknown): string {
  if (error instanceof Fault) return error.message;
  throw error;
}
