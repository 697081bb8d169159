/** The change of the passphrase that seals what an agent keeps. */
import { join } from 'node:path';
import type { RemotePorts } from '../src/keys/remote-keys.ts';
import { type ResealedThing, resealFile, resealing } from '../src/keys/reseal.ts';
import { requireStopped } from '../src/rpc/socket-path.ts';
import type { AgentOptions } from './config.ts';
import { secretFiles } from './state.ts';

/** Throws `state/refused` while the agent runs. */
export async function resealAgent(options: AgentOptions, ports: RemotePorts): Promise<readonly ResealedThing[]> {
  const by = await resealing(options.keys, ports);
  await requireStopped(options.adminSocket, 'agent');
  const done: ResealedThing[] = [];
  for (const file of secretFiles) done.push(await resealFile(join(options.dataDir, 'state', file), by));
  return done;
}
