/** Metrics of gRPC calls, fed by the hook that the listeners call once at the end of each. */
import { Status } from '../errors.ts';
import type { Metrics } from './metrics.ts';

/** From a cached answer to a signature that waits for a slow key manager. Seconds. */
const latencyBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const codeNames = new Map<number, string>(Object.entries(Status).map(([name, code]) => [code, name]));

/**
 * Makes the hook. `method` is `/package.Service/Method`, `status` a gRPC code, `ms` the call's length in milliseconds.
 * Streams count like calls: their length is how long they were open.
 */
export function callMetrics(metrics: Metrics): (method: string, status: number, ms: number) => void {
  const calls = metrics.counter('rpc_calls_total', 'Finished gRPC calls.', ['service', 'method', 'code']);
  const seconds = metrics.histogram('rpc_duration_seconds', 'Length of gRPC calls.', latencyBuckets, [
    'service',
    'method',
  ]);
  return (method, status, ms) => {
    const [, service = '', name = ''] = method.split('/');
    calls.add({ service, method: name, code: codeNames.get(status) ?? 'UNKNOWN' });
    seconds.observe(ms / 1000, { service, method: name });
  };
}
