/** What a command may touch besides its flags: main.ts fills it from the process, tests from values. */
import type { Clock } from '../src/run/clock.ts';
import type { Random } from '../src/run/random.ts';

export interface Ports {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  /** Writes to standard output, as given. */
  out(text: string): void;
  /** Writes to standard error, as given. */
  err(text: string): void;
  /** Whether standard output is a terminal: only then colours and progress. */
  readonly terminal: boolean;
  /** Colours a text for standard output; returns it unchanged when that is no terminal or NO_COLOR is set. */
  style(format: 'bold' | 'dim' | 'green' | 'red' | 'yellow' | 'cyan', text: string): string;
  /** All of standard input. */
  stdin(): Promise<string>;
  /** Aborted by SIGINT or SIGTERM. */
  readonly stop: AbortSignal;
  /** The user that runs the command. */
  readonly user: { readonly uid: number; readonly name: string };
  /** The versions of the runtime and its parts, as process.versions. */
  readonly versions: Readonly<Record<string, string | undefined>>;
  /** The directory relative paths start from. */
  readonly directory: string;
}
