/**
 * What one broker may take of the agent at a time and in a second, so that no other broker and no workload notices. Too
 * much is overload, which the standard answers with UNAVAILABLE (SPIFFE Broker Endpoint §6); a well-made client comes again.
 */
import { Fault, Status } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { tally } from '../api/caller-limits.ts';

export interface BrokerLimitOptions {
  readonly callsPerBroker: number;
  readonly callsPerSecond: number;
}

export interface BrokerLimits {
  /** Takes a connection in, of a broker or (undefined) of somebody who is none; the returned function is for its end. */
  admit(broker: SpiffeId | undefined): () => void;
  /** Takes a call of a broker in. Throws `limit/exceeded`. */
  begin(id: SpiffeId, call: Call): void;
  /** For the end of every call, also of one that was not taken in. */
  end(call: Call): void;
}

/** Connections of one broker, and of all who are none: those get their refusal, and keep no broker out. */
const connectionsPerBroker = 64;
const connectionsOfOthers = 64;

/**
 * Brokers are those that the configuration names, so what is remembered of them is bounded by it.
 * @param options read at each use: they may change
 */
export function brokerLimits(options: BrokerLimitOptions, clock: Clock): BrokerLimits {
  const connections = tally<SpiffeId | undefined>();
  const open = tally<SpiffeId>();
  const taken = new WeakMap<Call, SpiffeId>();
  /** When the allowance of a broker is full again, Unix milliseconds. */
  const fullAt = new Map<SpiffeId, number>();
  return {
    admit(broker) {
      const most = broker === undefined ? connectionsOfOthers : connectionsPerBroker;
      if (connections.of(broker) >= most) {
        throw tooMuch(`${broker ?? 'callers that are no brokers'} have ${most} connections already`, 1_000);
      }
      connections.add(broker, 1);
      return () => connections.add(broker, -1);
    },
    begin(id, call) {
      const { callsPerBroker, callsPerSecond } = options;
      if (open.of(id) >= callsPerBroker) {
        throw tooMuch(`broker ${id} has ${callsPerBroker} calls and streams open already`, 1_000);
      }
      const now = clock.now();
      const next = Math.max(fullAt.get(id) ?? 0, now) + 1_000 / callsPerSecond;
      if (next - now > 1_000) {
        throw tooMuch(`broker ${id} calls more than ${callsPerSecond} times a second`, Math.ceil(next - now - 1_000));
      }
      fullAt.set(id, next);
      open.add(id, 1);
      taken.set(call, id);
    },
    end(call) {
      const id = taken.get(call);
      if (id !== undefined && taken.delete(call)) open.add(id, -1);
    },
  };
}

const tooMuch = (message: string, retryAfterMs: number): Fault =>
  new Fault('limit/exceeded', message, {
    status: Status.UNAVAILABLE,
    hint: 'Keep one stream a workload open, which brings every change by itself.',
    retryAfterMs,
  });
