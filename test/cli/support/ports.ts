/** Ports of a command for tests: what it prints is kept. */
import type { Ports } from '../../../cli/ports.ts';
import { systemClock } from '../../../src/run/clock.ts';
import { systemRandom } from '../../../src/run/random.ts';

export interface TestPorts extends Ports {
  readonly printed: { out: string; err: string };
  /** Resolves when standard output has had this text. */
  shows(text: string): Promise<void>;
}

export function testPorts(given: Partial<Ports> & { input?: string } = {}): TestPorts {
  const printed = { out: '', err: '' };
  const { input = '', ...rest } = given;
  const waiting = new Set<() => void>();
  return {
    env: {},
    clock: systemClock,
    random: systemRandom,
    out: (text) => {
      printed.out += text;
      for (const look of [...waiting]) look();
    },
    shows: (text) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!printed.out.includes(text)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
    err: (text) => {
      printed.err += text;
    },
    terminal: false,
    style: (_, text) => text,
    stdin: async () => input,
    stop: new AbortController().signal,
    user: { uid: process.getuid?.() ?? 0, name: 'tester' },
    versions: process.versions,
    directory: '/nowhere',
    printed,
    ...rest,
  };
}
