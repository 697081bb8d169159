/** The ports of a key store under test: a clock that the test drives and a log that is kept. */
import type { LoadPackage } from '../../src/keys/load-package.ts';
import type { KeyPorts } from '../../src/keys/open.ts';
import { systemRandom } from '../../src/run/random.ts';
import { type DrivenClock, drivenClock } from './clock.ts';

export interface TestKeyPorts extends KeyPorts {
  readonly load: LoadPackage;
  readonly clock: DrivenClock;
  /** `event` of each line, with its fields. */
  readonly events: { level: string; event: string; [field: string]: unknown }[];
}

// biome-ignore lint/suspicious/noExplicitAny: a package, or what stands in its place.
export function keyPorts(packages: Readonly<Record<string, any>> = {}, clock = drivenClock()): TestKeyPorts {
  const events: TestKeyPorts['events'] = [];
  const write =
    (level: string) =>
    (fields: Readonly<Record<string, unknown>>, event: string): void => {
      events.push({ ...fields, level, event });
    };
  return {
    clock,
    events,
    random: systemRandom,
    log: { info: write('info'), warn: write('warn') },
    async load(name) {
      if (packages[name] !== undefined) return packages[name];
      throw Object.assign(new Error(`Cannot find package '${name}'`), { code: 'ERR_MODULE_NOT_FOUND' });
    },
  };
}
