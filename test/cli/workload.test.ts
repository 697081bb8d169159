/** The commands of workloads and about agents: each script in workload-scripts/ against a server and an agent of its own. */
import { deepEqual, equal, match } from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { run } from '../../cli/run.ts';
import { testPorts } from './support/ports.ts';
import { claimOf, runScript } from './support/script.ts';
import { startUp, type Up } from './support/up.ts';

const scripts = new URL('./workload-scripts/', import.meta.url);

suite('workload scripts', async () => {
  let directory: string;
  let up: Up;
  let env: Record<string, string>;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mutual-wl-'));
    up = await startUp(directory, ['--wit-svids']);
    env = { ...up.env, MUTUAL_AGENT_ADMIN_SOCKET: join(directory, '.mutual/agent/private/admin.sock') };
    // The agent tells its version a moment after it serves.
    for (let turn = 0; turn < 3_000; turn++) {
      const ports = testPorts({ env, directory });
      await run(['agent', 'list', '--output', 'json'], ports);
      if (/"agent_version":"[^"]/.test(ports.printed.out)) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error('the agent has not told its version');
  });
  after(async () => {
    await up.stop();
    await rm(directory, { recursive: true });
  });

  for (const name of (await readdir(scripts)).sort()) {
    const script = await readFile(new URL(name, scripts), 'utf8');
    test(`${name}: ${claimOf(script)}`, () =>
      runScript(
        script,
        async (words, input) => {
          const ports = testPorts({ env, directory, input });
          const exit = await run(words, ports);
          return { ...ports.printed, exit };
        },
        new Map([['DIR', directory]]),
      ));
  }

  test('fetch x509 --write: the files belong together, and only the owner reads the key', async () => {
    const ports = testPorts({ env, directory });
    equal(await run(['fetch', 'x509', '--write', 'files'], ports), 0, ports.printed.err);
    const [svid, key, bundle] = await Promise.all(
      ['svid.pem', 'key.pem', 'bundle.pem'].map((name) => readFile(join(directory, 'files', name), 'utf8')),
    );
    const { createPrivateKey } = await import('node:crypto');
    const leaf = new X509Certificate(svid!);
    equal(leaf.checkPrivateKey(createPrivateKey(key!)), true);
    equal(leaf.verify(new X509Certificate(bundle!).publicKey), true);
    equal((await stat(join(directory, 'files', 'key.pem'))).mode & 0o777, 0o600);
    deepEqual((await readdir(join(directory, 'files'))).sort(), ['bundle.pem', 'crl.pem', 'key.pem', 'svid.pem']);
  });

  test('watch prints an update, then the next one when an entry comes, and ends with 0 at a signal', async () => {
    const stop = new AbortController();
    const ports = testPorts({ env, directory, stop: stop.signal });
    const watching = run(['watch', '--output', 'json'], ports);
    await ports.shows('"spiffe_id":"spiffe://example.org/user/tester"');
    const uid = process.getuid?.() ?? 0;
    const created = testPorts({ env, directory });
    const entry = ['--spiffe-id', 'spiffe://example.org/second', '--parent-id', 'spiffe://example.org/local'];
    equal(await run(['entry', 'create', ...entry, '--selector', `unix:uid:${uid}`], created), 0, created.printed.err);
    await ports.shows('"spiffe_id":"spiffe://example.org/second"');
    stop.abort(new Error('stop'));
    equal(await watching, 0);
    const lines = ports.printed.out.trimEnd().split('\n');
    for (const line of lines) match(line, /^\{.*\}$/);
    equal(ports.printed.out.includes('x509_svid_key'), false, 'keys are not printed');
    equal(JSON.parse(lines.at(-1)!).svids.length, 2);
  });
});
