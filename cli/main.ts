/** The process edge of the command: arguments, environment, signals, exit. Everything else is run.ts and the commands. */
import { userInfo } from 'node:os';
import { text } from 'node:stream/consumers';
import { styleText } from 'node:util';
import { systemClock } from '../src/run/clock.ts';
import { systemRandom } from '../src/run/random.ts';
import type { Ports } from './ports.ts';
import { run } from './run.ts';

const words = process.argv.slice(2);

// A reader that has seen enough (`mutual entry list | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The second one means it.
    if (stop.signal.aborted) process.exit(130);
    stop.abort(new Error(signal));
  });
}

const ports: Ports = {
  env: process.env,
  clock: systemClock,
  random: systemRandom,
  out: (line) => void process.stdout.write(line),
  err: (line) => void process.stderr.write(line),
  terminal: process.stdout.isTTY === true,
  style: (format, line) => styleText(format, line, { stream: process.stdout }),
  stdin: () => text(process.stdin),
  stop: stop.signal,
  get user() {
    return { uid: process.getuid?.() ?? -1, name: nameOfUser() };
  },
  versions: process.versions,
  directory: process.cwd(),
};

function nameOfUser(): string {
  try {
    return userInfo().username;
  } catch {
    // A uid without an account, as in many containers.
    return `uid-${process.getuid?.() ?? 'unknown'}`;
  }
}

// Not awaited at the top level: the bundle is a CommonJS module.
async function main(): Promise<void> {
  if (words[0] === 'complete' && words[1] === '--') {
    const { complete } = await import('./completion.ts');
    return complete(words.slice(2));
  }
  const code = await run(words, ports);
  process.stdout.write('', () => process.exit(code));
}

void main();
