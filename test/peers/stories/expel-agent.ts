/** An operator bans or evicts an agent; what the agent does then, and what it may do after. */

import { makeNodeIdentity } from '../support/node-identity.ts';
import {
  admin,
  createEntry,
  joinToken,
  type Make,
  startAgent,
  startServer,
  workload,
  writeBundle,
} from '../support/pair.ts';
import type { Place } from '../support/place.ts';
import { until } from '../support/until.ts';

export interface Expelled {
  /** 'ended' when its process stopped by itself, 'served' when it attested again in place and serves on. */
  readonly agent: 'ended' | 'served';
  readonly exitCode: number | null | undefined;
  /** Whether the server then lists it as banned. */
  readonly banned: boolean;
  /** What comes of it when it is started again on its old data, twice if need be. */
  readonly afterRestart: 'ended' | 'served' | 'not tried';
}

export async function expelAgent(
  place: Place,
  makes: { server: Make; agent: Make },
  how: 'ban' | 'evict',
  method: 'join_token' | 'x509pop',
): Promise<Expelled> {
  const node = await makeNodeIdentity(place.path('node'));
  const server = await startServer(makes.server, place, 'server', { x509popCa: node.ca });
  const token = method === 'join_token' ? await joinToken(server) : undefined;
  const credentials = token ? { joinToken: token } : { x509pop: { key: node.key, certificate: node.certificate } };
  const agent = await startAgent(makes.agent, place, 'agent', server, {
    bundle: await writeBundle(server),
    ...credentials,
  });
  const [listed] = (await admin(server, 'agent', 'list')).agents;
  const agentId = `spiffe://${listed.id.trust_domain}${listed.id.path}`;
  await createEntry(server, 'spiffe://example.org/web', agentId, [`unix:uid:${process.getuid!()}`]);
  await until('the first identity', 60_000, () => workload(agent, 'x509'));

  const list = async () =>
    (await admin(server, 'agent', 'list')).agents as { banned: boolean; x509svid_serial_number: string }[];
  await admin(server, 'agent', how, '-spiffeID', agentId);
  const outcome = (): Promise<'ended' | 'served'> =>
    until('the agent ends or is attested again', 60_000, async () => {
      if (agent.program().ending()) return 'ended';
      const [again] = await list();
      if (!again || again.banned) return undefined;
      return (await workload(agent, 'x509')) && 'served';
    });
  const first = await outcome();
  const exitCode = agent.program().ending()?.code;
  const banned = (await list())[0]?.banned ?? false;
  // A join token is spent, and Go's agent tries for most of a minute before it believes that; only x509pop starts again.
  let afterRestart: Expelled['afterRestart'] = 'not tried';
  if (method === 'x509pop') {
    await agent.program().stop();
    // A supervisor starts an agent again when it ends: Go's first drops what it holds and only then attests anew.
    for (let starts = 0; starts < 2 && afterRestart !== 'served'; starts++) {
      await agent.restart(false);
      afterRestart = await outcome();
    }
  }
  return { agent: first, exitCode, banned, afterRestart };
}
