import { Fault } from '../src/errors.ts';
import { backoffDelay } from '../src/run/backoff.ts';
import { sleep } from '../src/run/clock.ts';
import { command } from './command.ts';
import { printMoment } from './duration.ts';
import { output, workloadSocket } from './flags.ts';
import { jsonLine } from './json.ts';
import { svidTable } from './svid-text.ts';
import { count } from './table.ts';
import { visible } from './visible.ts';
import { withWorkload } from './workload.ts';

/** Between attempts to reach the agent again: as the standard asks of clients (Workload API §6). */
const patience = { first: 1000, most: 30_000, factor: 2 };

export const watch = command({
  summary: 'Print each update of the X.509-SVIDs of this process',
  about:
    'Stays until Ctrl-C. When the agent goes away, or has no identity for this process, it says so and tries again. JSON is a line an update, without private keys.',
  flags: { output, socket: workloadSocket },
  async run(values, ports) {
    let failures = 0;
    while (!ports.stop.aborted) {
      try {
        await withWorkload(values.socket, ports, async (workload) => {
          for await (const response of workload.stream('FetchX509SVID', {})) {
            failures = 0;
            if (values.output === 'json') {
              const svids = response.svids.map(({ x509_svid_key: _, ...svid }: { x509_svid_key: Buffer }) => svid);
              ports.out(jsonLine({ ...response, svids }));
            } else {
              const at = printMoment(Math.floor(ports.clock.now() / 1000));
              ports.out(
                `${at}  received ${count(response.svids.length, 'SVID', 'SVIDs')}\n${svidTable(response, ports)}\n`,
              );
            }
          }
        });
        ports.err('The agent ended the stream; trying again.\n');
      } catch (error) {
        if (ports.stop.aborted) break;
        // Only what time can heal is waited for.
        if (!(error instanceof Fault) || !['peer/unavailable', 'caller/denied', 'limit/exceeded'].includes(error.code))
          throw error;
        ports.err(`${visible(error.message)}; trying again.\n`);
      }
      failures++;
      await sleep(ports.clock, backoffDelay(patience, failures, ports.random.unit()), ports.stop).catch(() => {});
    }
    return 0;
  },
});
