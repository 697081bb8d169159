/**
 * The log of refused calls. A caller in a loop would write the log full: of each kind (who, what, why) one line is written
 * in a while, and the next one says how many were left out since.
 */
import { LRUCache } from 'lru-cache';
import { type Fault, Status } from '../src/errors.ts';
import type { Log } from '../src/log.ts';
import type { Call } from '../src/rpc/serve.ts';
import type { Clock } from '../src/run/clock.ts';
import { why } from './why.ts';

/** Milliseconds between two lines of one kind. */
const period = 60_000;
const mostKinds = 1_000;

export function refusalLog(log: Log, clock: Clock): (call: Call, fault: Fault) => void {
  const said = new LRUCache<string, { at: number; leftOut: number }>({ max: mostKinds });
  return (call, fault) => {
    const { caller: from } = call;
    const caller = from.kind === 'unix' ? { pid: from.peer.pid, uid: from.peer.uid } : { id: from.svid?.id };
    const key = `${caller.uid ?? caller.id} ${call.method} ${fault.code} ${fault.message.slice(0, 40)}`;
    const last = said.get(key);
    const now = clock.now();
    if (last !== undefined && now - last.at < period) {
      last.leftOut++;
      return;
    }
    said.set(key, { at: now, leftOut: 0 });
    const fields = {
      method: call.method,
      ...caller,
      status: fault.status,
      ...why(fault),
      ...(last !== undefined && last.leftOut > 0 && { left_out: last.leftOut }),
    };
    if (fault.status === Status.INTERNAL) log.error(fields, 'call failed');
    else log.info(fields, 'call refused');
  };
}
