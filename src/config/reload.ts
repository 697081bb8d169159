/** SIGHUP: reads the configuration again, takes what can be taken, and says in the log what was and what was not. */

import { Fault } from '../errors.ts';
import type { LiveOptions } from './live.ts';
import type { Reading } from './read.ts';

/** What is told of it; the program's log fits. */
interface ReloadLog {
  info(fields: Readonly<Record<string, unknown>>, event: string): void;
  warn(fields: Readonly<Record<string, unknown>>, event: string): void;
  error(fields: Readonly<Record<string, unknown>>, event: string): void;
}

export interface ReloadPorts<O> {
  /** Reads the sources again. Throws `config/invalid` and what a file cannot be read for. */
  read(): Promise<Reading<O> & { readonly options: O }>;
  readonly live: LiveOptions<O>;
  /** Makes ready for the options; the returned function takes them, and cannot fail. */
  prepare(next: O): Promise<() => void>;
  readonly log: ReloadLog;
}

/** Gives what is done at each signal. One at a time; it never rejects. */
export function reloader<O>({ read, live, prepare, log }: ReloadPorts<O>): () => Promise<void> {
  let turn: Promise<void> = Promise.resolve();

  async function reload(): Promise<void> {
    try {
      const { options: next, warnings } = await read();
      const { differences, options, accept } = live.offer(next);
      const take = await prepare(options);
      accept();
      take();
      for (const warning of warnings) log.warn({}, warning);
      for (const { path, from, to, live: isTaken } of differences) {
        if (isTaken) log.info({ option: path, from, to }, 'option changed');
        else
          log.warn({ option: path, from, to }, 'option changed in the configuration: it counts from the next start on');
      }
      log.info({ changed: differences.filter((one) => one.live).length }, 'configuration read again');
    } catch (error) {
      const { message, hint } = error instanceof Fault ? error : { message: String(error), hint: undefined };
      log.error({ reason: message, ...(hint && { hint }) }, 'configuration not taken: the old one stays');
    }
  }

  return () => {
    turn = turn.then(reload);
    return turn;
  };
}

/** The `prepare` of a program that may still be starting. The level of its log is taken with the rest. */
export function preparing<O extends { readonly log: { readonly level: Level } }, Level>(
  started: Promise<{ prepare(next: O): Promise<() => void> }>,
  log: { launch(level: Level): void },
): ReloadPorts<O>['prepare'] {
  return async (next) => {
    const take = await (await started).prepare(next);
    return () => {
      take();
      log.launch(next.log.level);
    };
  };
}
