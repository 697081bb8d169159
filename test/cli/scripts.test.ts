/** The command line as its users see it: each script in scripts/ against a server of its own. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { run } from '../../cli/run.ts';
import { readServerOptions } from '../../server/config.ts';
import { startServer } from '../../server/server.ts';
import { createLog } from '../../src/log.ts';
import { systemClock } from '../../src/run/clock.ts';
import { systemRandom } from '../../src/run/random.ts';
import { testPorts } from './support/ports.ts';
import { claimOf, optionsOf, runScript } from './support/script.ts';

const scripts = new URL('./scripts/', import.meta.url);

suite('scripts', async () => {
  for (const name of (await readdir(scripts)).filter((each) => each.endsWith('.txt')).sort()) {
    const script = await readFile(new URL(name, scripts), 'utf8');
    test(`${name}: ${claimOf(script)}`, async () => {
      const directory = await mkdtemp(join(tmpdir(), 'mutual-cli-'));
      const { options } = await readServerOptions({
        flags: {
          'trust-domain': 'example.org',
          'data-dir': join(directory, 'server'),
          listen: '127.0.0.1:0',
          'keys-store': 'memory',
          database: 'sqlite::memory:',
          ...optionsOf(script),
        },
      });
      const log = createLog({ level: 'error', format: 'text', clock: systemClock, write: () => {} });
      const server = await startServer(options, { clock: systemClock, random: systemRandom, log });
      try {
        const env = { MUTUAL_ADMIN_SOCKET: server.adminSocket };
        await runScript(
          script,
          async (words, input) => {
            const ports = testPorts({ env, directory, input });
            const exit = await run(words, ports);
            return { ...ports.printed, exit };
          },
          new Map([
            ['DIR', directory],
            ['SOCKET', server.adminSocket],
          ]),
        );
      } finally {
        await server.close();
        await rm(directory, { recursive: true });
      }
    });
  }
});
