/** Servers below each other, each of either make with an agent of its own. */
import { realpathSync } from 'node:fs';
import { peerPath } from '../../../tools/peers.ts';
import { mutual } from './mutual.ts';
import {
  type Agent,
  createEntry,
  joinToken,
  type Make,
  type Server,
  type ServerOptions,
  startAgent,
  startServer,
  writeBundle,
} from './pair.ts';
import type { Place } from './place.ts';
import { until } from './until.ts';

export const td = 'spiffe://example.org';
/** The file of a server's process, by which an agent of the server above knows it. */
const programOf = (make: Make): string =>
  make === 'spire' ? peerPath('spire-server') : realpathSync(process.execPath);
/** Milliseconds for what a server knows to reach those below it and their agents. */
export const spread = 30_000;

export interface Level {
  readonly server: Server;
  readonly agent: Agent;
}

/** Starts a server, below another when given, and its agent. @param wishes other than what both makes have by default */
export async function startLevel(
  place: Place,
  name: string,
  make: Make,
  above?: Level,
  wishes: Pick<ServerOptions, 'x509Ttl' | 'agentTtl' | 'config'> = {},
): Promise<Level> {
  const server = await startServer(make, place, name, { ...wishes, ...(above && { upstream: above }) });
  const alias = `${td}/node/${name}`;
  const agent = await startAgent(make, place, `${name}-agent`, server, {
    joinToken: await joinToken(server, alias),
    bundle: await writeBundle(server),
  });
  return { server, agent };
}

/** Lets the server of the next level have its authority from this one. */
export async function admit({ server, agent }: Level, name: string, below: string, make: Make): Promise<void> {
  const selectors = [`unix:path:${programOf(make)}`];
  await createEntry(server, `${td}/${below}`, `${td}/node/${name}`, selectors, '-downstream');
  // A server that has no authority yet does not wait for an agent that does not know it yet.
  if (make === 'mutual') {
    await until(`${below} is known to the agent above it`, spread, async () => {
      return (await mutual(['fetch', 'x509', '--socket', agent.socket, '--silent'])).code === 0;
    });
  }
}
