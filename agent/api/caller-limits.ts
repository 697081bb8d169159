/**
 * What one user of the node may hold of the agent, so that no other user notices whatever it does: connections and calls at
 * a time by user, since the agent's descriptors and memory go by these; calls a second by process, since many unrelated
 * ones may run as one user. Nothing here waits or queues: what is too much is refused at once.
 */
import { LRUCache } from 'lru-cache';
import { Fault } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import type { UnixPeer } from '../../src/rpc/unix-peer.ts';
import type { Clock } from '../../src/run/clock.ts';

export interface CallerLimitOptions {
  readonly connectionsPerUser: number;
  readonly callsPerUser: number;
  /** 0 for no limit. */
  readonly callsPerSecond: number;
}

export interface CallerLimits {
  /** Takes a connection in; the returned function is for its end. Throws `limit/exceeded`. */
  admit(peer: Pick<UnixPeer, 'uid'>): () => void;
  /** Takes a call in. Throws `limit/exceeded`. */
  begin(call: Call): void;
  /** For the end of every call, also of one that was not taken in. */
  end(call: Call): void;
}

/** Processes whose rate is remembered; one that is forgotten begins with a full allowance. */
const mostProcesses = 4_096;

/** @param options read at each use: they may change */
export function callerLimits(options: CallerLimitOptions, clock: Clock): CallerLimits {
  const connections = tally<number>();
  const calls = tally<number>();
  const taken = new WeakSet<Call>();
  /** When the allowance of a process is full again, Unix milliseconds. */
  const fullAt = new LRUCache<number, number>({ max: mostProcesses });

  const spend = (pid: number, callsPerSecond: number): void => {
    const now = clock.now();
    const next = Math.max(fullAt.get(pid) ?? 0, now) + 1_000 / callsPerSecond;
    if (next - now > 1_000) {
      throw new Fault('limit/exceeded', `process ${pid} calls more than ${callsPerSecond} times a second`, {
        hint: 'Keep a stream open, which brings every change by itself.',
      });
    }
    fullAt.set(pid, next);
  };

  return {
    admit({ uid }) {
      const { connectionsPerUser } = options;
      if (connections.of(uid) >= connectionsPerUser)
        throw new Fault('limit/exceeded', `user ${uid} has ${connectionsPerUser} connections to the agent already`, {
          hint: 'Close those that are not used; limits.connectionsPerUser is how many a user may have.',
        });
      connections.add(uid, 1);
      return () => connections.add(uid, -1);
    },
    begin(call) {
      if (call.caller.kind !== 'unix') return;
      const { uid, pid } = call.caller.peer;
      const { callsPerUser, callsPerSecond } = options;
      if (calls.of(uid) >= callsPerUser)
        throw new Fault('limit/exceeded', `user ${uid} has ${callsPerUser} calls and streams open already`, {
          hint: 'End those that are not used; limits.callsPerUser is how many a user may have.',
        });
      if (callsPerSecond > 0) spend(pid, callsPerSecond);
      taken.add(call);
      calls.add(uid, 1);
    },
    end(call) {
      if (call.caller.kind === 'unix' && taken.delete(call)) calls.add(call.caller.peer.uid, -1);
    },
  };
}

/** How many of something each has; those with none are forgotten. */
export function tally<Who>() {
  const counts = new Map<Who, number>();
  return {
    of: (who: Who): number => counts.get(who) ?? 0,
    add(who: Who, more: number): void {
      const now = (counts.get(who) ?? 0) + more;
      if (now === 0) counts.delete(who);
      else counts.set(who, now);
    },
  };
}
