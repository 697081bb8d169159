/** What is done now and then, so that nothing grows for ever: expired entries, tokens and nodes, old changes of the log. */
import type { Log } from '../src/log.ts';
import { type Clock, sleep } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';
import type { ServerOptions } from './config.ts';
import type { World } from './entries/world.ts';
import type { Store } from './store/store.ts';

const every = 5 * 60_000;
const batch = 1000;
/** Changes kept for agents that come back. */
const keptChanges = 100_000;
/** Milliseconds that a revocation is kept beyond the end of what it revokes, for clocks that are behind (RFC 5280 §3.3). */
const keptExpired = 10 * 60_000;

export interface HousekeepingPorts {
  readonly options: ServerOptions;
  readonly store: Store;
  readonly world: World;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Runs until the signal. A failure is logged and tried again next time. */
export async function keepHouse(ports: HousekeepingPorts, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    // Spread, so that many servers on one database do not all begin at once.
    await sleep(ports.clock, every * (0.9 + 0.2 * ports.random.unit()), signal);
    await tidy(ports).catch((error: unknown) => ports.log.error({ error }, 'housekeeping failed; it is tried again'));
  }
}

async function tidy({ options, store, world, clock, log }: HousekeepingPorts): Promise<void> {
  const now = Math.floor(clock.now() / 1000);
  const tokens = await store.tokens.prune(now);
  let entries = 0;
  for (let pruned = batch; pruned === batch; entries += pruned) pruned = await store.entries.prune(now, batch);
  for (let pruned = batch; pruned === batch; ) pruned = await store.revocations.prune(clock.now() - keptExpired, batch);
  let nodes = 0;
  if (options.pruneNodesExpiredFor !== undefined) {
    const before = now - Math.floor(options.pruneNodesExpiredFor / 1000);
    // A banned node stays, so that it stays banned; one that cannot attest again stays, since its token is gone.
    const expired = [...world.nodes.values()].filter(
      (node) => node.serial !== '' && node.canReattest && node.expiresAt < before,
    );
    for (const node of expired.slice(0, batch)) {
      // While others were being removed it may have attested anew.
      if (world.nodes.get(node.id) === node && (await store.nodes.delete(node.id))) nodes++;
    }
  }
  const position = await store.log.position();
  if (position > keptChanges) await store.log.prune(position - keptChanges);
  if (tokens + entries + nodes > 0) log.info({ tokens, entries, nodes }, 'expired things removed');
}
