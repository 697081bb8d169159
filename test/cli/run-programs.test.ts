/** `server run` and `agent run` as processes: they start from flags alone, take a token without showing it, and stop. */
import { equal, match } from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../cli/run.ts';
import { folderOf, killAfter } from '../support/programs.ts';
import { testPorts } from './support/ports.ts';

const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));

interface Program {
  readonly child: ChildProcess;
  /** The first match in its log. */
  says(pattern: RegExp): Promise<RegExpExecArray>;
  /** Sends SIGTERM; gives the exit code. */
  stop(): Promise<number | null>;
}

function start(t: TestContext, words: readonly string[]): Program {
  const child = spawn(process.execPath, [main, ...words], { stdio: ['pipe', 'ignore', 'pipe'] });
  killAfter(t, child);
  let log = '';
  const waiting = new Set<() => void>();
  child.stderr!.setEncoding('utf8').on('data', (text) => {
    log += text;
    for (const look of [...waiting]) look();
  });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  return {
    child,
    says: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = pattern.exec(log);
          if (found === null) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
        void ended.then((code) => reject(new Error(`ended with ${code} before it said ${pattern}:\n${log}`)));
      }),
    stop() {
      child.kill('SIGTERM');
      return ended;
    },
  };
}

suite('programs', () => {
  test("a server and an agent start from SPIRE's flags, the token comes by standard input, and SIGTERM ends both with 0", async (t) => {
    const directory = await folderOf(t, 'mutual-run-');
    const at = (name: string): string => join(directory, name);
    const server = start(t, [
      'server',
      'run',
      '-trustDomain',
      'example.org',
      '-dataDir',
      at('s'),
      '-bindAddress',
      '127.0.0.1',
      '-serverPort',
      '0',
      '-logFormat',
      'json',
    ]);
    const [, port] = await server.says(/"listen":"127\.0\.0\.1:(\d+)"/);
    const command = async (...words: string[]): Promise<string> => {
      const ports = testPorts({ directory, env: { MUTUAL_ADMIN_SOCKET: at('s/private/api.sock') } });
      equal(await run(words, ports), 0, ports.printed.err);
      return ports.printed.out;
    };
    await writeFile(at('bundle.pem'), await command('bundle', 'show'));
    const token = (await command('token', 'create')).trim();

    const flags = [
      '-trustDomain',
      'example.org',
      '-serverAddress',
      '127.0.0.1',
      '-serverPort',
      port!,
      '-trustBundle',
      at('bundle.pem'),
      '-dataDir',
      at('a'),
    ];
    const agent = start(t, ['agent', 'run', ...flags, '--join-token-file', '-']);
    agent.child.stdin!.end(`${token}\n`);
    await agent.says(/agent serves/);
    const line = await readFile(`/proc/${agent.child.pid}/cmdline`, 'utf8');
    equal(line.includes(token), false, 'the token is on no command line');
    match(await command('agent', 'list', '--output', 'json'), /"attestation_type":"join_token"/);
    equal(await agent.stop(), 0);

    // Attested once, it needs no token any more.
    const again = start(t, ['agent', 'run', ...flags]);
    await again.says(/agent serves/);
    equal(await again.stop(), 0);
    equal(await server.stop(), 0);
  });

  test('an agent with nothing on standard input says so', async (t) => {
    const agent = start(t, [
      'agent',
      'run',
      '--trust-domain',
      'example.org',
      '--server',
      '127.0.0.1:1',
      '--join-token',
      '-',
    ]);
    agent.child.stdin!.end();
    await agent.says(/^error: standard input has no join token\nhint: /m);
  });
});
