/** What the services of the API are given: ports and live values, all complete before the first call. */
import type { Log } from '../../src/log.ts';
import type { Call } from '../../src/rpc/serve.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Live } from '../../src/run/live.ts';
import type { Random } from '../../src/run/random.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import type { NodeAttestor } from '../attest/methods.ts';
import type { Authorities } from '../authorities.ts';
import type { ServerOptions } from '../config.ts';
import type { FollowedWorld } from '../entries/world.ts';
import type { SigningWorkers } from '../issue/signing-workers.ts';
import type { Recorder } from '../revocation/recorder.ts';
import type { Target } from '../revocation/revoke.ts';
import type { Holdings } from '../rotation/holdings.ts';
import type { Store } from '../store/store.ts';
import type { Rights } from './access.ts';
import type { Limiter } from './limits.ts';

export interface Context {
  readonly trustDomain: TrustDomain;
  readonly options: ServerOptions;
  readonly store: Store;
  readonly world: FollowedWorld;
  readonly authorities: Authorities;
  /** Remembers who was issued what, so that it can be revoked. */
  readonly recorder: Recorder;
  /** Does what shuts an agent or an entry out, and revokes what was issued for it where the operator wants that. */
  withdrawing<T>(targets: readonly Target[], act: () => Promise<T>): Promise<T>;
  /** What each agent has said that it holds. */
  readonly holdings: Holdings;
  /** Threads that issue beside this one; absent where none are wanted. */
  readonly signing?: SigningWorkers | undefined;
  /** By the type that agents name. */
  readonly attestors: Live<ReadonlyMap<string, NodeAttestor>>;
  readonly limit: Limiter;
  /** The rights the access check found for this call. */
  rightsOf(call: Call): Rights;
  /**
   * Checks the access anew, for handlers that have waited for something since: the caller may have been banned, evicted
   * or replaced meanwhile, or its SVID have expired. Throws `caller/denied`.
   */
  recheck(call: Call): Rights | Promise<Rights>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}
