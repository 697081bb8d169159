/**
 * Real programs, started by a test and certain to be gone after it: each belongs to a place (see place.ts) which stops
 * it, and whatever a crash of the test leaves behind is killed when the process exits.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { until } from './until.ts';

/** How a program ended. */
export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** One line of JSON on standard output of our Go programs. */
export interface Event {
  readonly event: string;
  // biome-ignore lint/suspicious/noExplicitAny: each event has its own fields, and tests say which they expect.
  readonly [field: string]: any;
}

export interface Program {
  readonly name: string;
  readonly pid: number;
  /** Settles when the program is gone; never rejects. */
  readonly ended: Promise<Ending>;
  /** How it ended, undefined while it runs. */
  ending(): Ending | undefined;
  /** All it has written on both streams so far. */
  output(): string;
  /** The events on its standard output so far. */
  events(name?: string): Event[];
  /** The first line that matches, now or later. Throws when the program ends or the deadline passes without one. */
  line(pattern: RegExp, deadlineMs?: number): Promise<RegExpMatchArray>;
  /** The first event after the first `skip` which passes `test`, now or later. */
  event(name: string, test?: (event: Event) => boolean, deadlineMs?: number): Promise<Event>;
  /** Asks it to stop, kills it after 30 s, and waits for its end. */
  stop(signal?: NodeJS.Signals): Promise<Ending>;
}

const running = new Set<ChildProcess>();
const killAll = (): void => {
  for (const child of running) child.kill('SIGKILL');
};
process.on('exit', killAll);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.once(signal, () => {
    killAll();
    process.exit(1);
  });

export interface StartOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly uid?: number;
  readonly gid?: number;
}

/** The environment of a started program: ours without what would point it to other sockets or configuration. */
function environment(extra: StartOptions['env'] = {}): NodeJS.ProcessEnv {
  const own = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^(MUTUAL_|SPIFFE_|SPIRE_|NODE_TEST_CONTEXT|NODE_OPTIONS)/.test(name),
    ),
  );
  return { ...own, ...extra };
}

const parseEvent = (line: string): Event | undefined => {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as Event;
  } catch {
    return undefined; // the last line may not be written whole yet
  }
};

/** Starts a program. It throws when it cannot be started at all. */
export async function start(
  name: string,
  command: string,
  args: readonly string[],
  options: StartOptions = {},
): Promise<Program> {
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: environment(options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.uid === undefined ? {} : { uid: options.uid }),
    ...(options.gid === undefined ? {} : { gid: options.gid }),
  });
  running.add(child);
  let [out, all, ending] = ['', '', undefined as Ending | undefined];
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    out += text;
    all += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    all += text;
  });
  const ended = new Promise<Ending>((resolve) => {
    child.on('close', (code, signal) => {
      running.delete(child);
      ending = { code, signal };
      resolve(ending);
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => {
      running.delete(child);
      reject(error);
    });
  });

  const tail = (): string => all.trimEnd().split('\n').slice(-15).join('\n');
  const waitFor = <T>(what: string, deadlineMs: number, find: () => T | undefined): Promise<T> => {
    let gone = false;
    return until(
      `${name}: ${what}`,
      deadlineMs,
      () => {
        const found = find();
        if (found !== undefined) return { found };
        if (gone)
          return { failed: `${name} ended (${ending?.signal ?? `code ${ending?.code}`}) before ${what}\n${tail()}` };
        gone = ending !== undefined; // look once more: its last lines may have come with its end
        return undefined;
      },
      20,
    ).then(
      (result) => {
        if ('failed' in result) throw new Error(result.failed);
        return result.found;
      },
      (error: Error) => {
        throw new Error(`${error.message}\n${tail()}`);
      },
    );
  };
  const events = (wanted?: string): Event[] =>
    out.split('\n').flatMap((line) => {
      const event = parseEvent(line);
      return event && (wanted === undefined || event.event === wanted) ? [event] : [];
    });

  return {
    name,
    pid: child.pid!,
    ended,
    ending: () => ending,
    output: () => all,
    events,
    line: (pattern, deadlineMs = 60_000) =>
      waitFor(`a line like ${pattern}`, deadlineMs, () => all.match(pattern) ?? undefined),
    event: (wanted, test = () => true, deadlineMs = 60_000) =>
      waitFor(`event ${wanted}`, deadlineMs, () => events(wanted).find(test)),
    async stop(signal = 'SIGTERM') {
      if (ending) return ending;
      child.kill(signal);
      const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
      const result = await ended;
      clearTimeout(timer);
      return result;
    },
  };
}

/** What a command gave that ran to its end. */
export interface Finished extends Ending {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end, killed after `deadlineMs`; a bad exit code is a result, not an error. */
export function run(
  command: string,
  args: readonly string[],
  options: StartOptions & { readonly input?: string; readonly deadlineMs?: number } = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: environment(options.env),
      timeout: options.deadlineMs ?? 60_000,
      killSignal: 'SIGKILL',
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
    });
    running.add(child);
    let [stdout, stderr] = ['', ''];
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.stdin!.on('error', () => {}); // it may not read what it is given
    child.stdin!.end(options.input ?? '');
    child.on('error', reject);
    child.on('close', (code, signal) => {
      running.delete(child);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/** The same, but a bad end throws, with what the command wrote. Gives its standard output. */
export async function runOk(
  command: string,
  args: readonly string[],
  options: Parameters<typeof run>[2] = {},
): Promise<string> {
  const { code, signal, stdout, stderr } = await run(command, args, options);
  if (code !== 0)
    throw new Error(
      `${command} ${args.join(' ')} ended with ${signal ?? `code ${code}`}\n${stdout}${stderr}`.trimEnd(),
    );
  return stdout;
}
