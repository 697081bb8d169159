/** `mutual up` in this process, for tests: started, and stopped as by Ctrl-C. */
import { run } from '../../../cli/run.ts';
import { type TestPorts, testPorts } from './ports.ts';

export interface Up {
  readonly ports: TestPorts;
  /** Variables that name its sockets. */
  readonly env: Record<string, string>;
  /** Its exit code, once it has ended. */
  readonly ended: Promise<number>;
  /** Stops it; gives its exit code. */
  stop(): Promise<number>;
}

/** Starts it with its data in `directory`/.mutual. Throws what it printed when it ends before it is up. */
export async function startUp(directory: string, flags: readonly string[] = []): Promise<Up> {
  const stop = new AbortController();
  const ports = testPorts({ directory, stop: stop.signal });
  const ended = run(['up', '--listen', '127.0.0.1:0', ...flags], ports);
  const early = ended.then((exit) => {
    throw new Error(`ended with ${exit}: ${ports.printed.out}${ports.printed.err}`);
  });
  early.catch(() => {});
  await Promise.race([ports.shows('Ctrl-C stops both.'), early]);
  const env = Object.fromEntries(
    [...ports.printed.out.matchAll(/^export ([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]),
  );
  return {
    ports,
    env,
    ended,
    stop() {
      stop.abort(new Error('stop'));
      return ended;
    },
  };
}
