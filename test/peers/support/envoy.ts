/** A real Envoy with the bootstraps of docs/envoy.md, and a load that counts what fails. */

import { readFileSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { peerPath } from '../../../tools/peers.ts';
import { freePort, type Place } from './place.ts';
import type { Program } from './program.ts';
import { until } from './until.ts';

export interface Envoy {
  readonly program: Program;
  /** What its admin endpoint answers. */
  admin(path: string): Promise<string>;
  /** The version of each secret it runs with, by name. */
  versions(): Promise<Readonly<Record<string, string>>>;
}

/** The block of docs/envoy.md that begins with this comment, with each text replaced; every one has to be there. */
export function bootstrapOf(title: string, replaced: Readonly<Record<string, string>>): string {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/envoy.md'), 'utf8');
  const block = page.split('```').find((part) => part.startsWith(`yaml\n# ${title}\n`));
  if (block === undefined) throw new Error(`docs/envoy.md has no block ${title}`);
  return Object.entries(replaced).reduce((text, [from, to]) => {
    if (!text.includes(from)) throw new Error(`${title} in docs/envoy.md has no ${from}`);
    return text.replaceAll(from, to);
  }, block.slice('yaml\n'.length));
}

/** Starts an Envoy on a bootstrap (YAML or JSON), to which its admin endpoint is added. */
export async function startEnvoy(
  place: Place,
  name: string,
  bootstrap: string,
  options: { cwd?: string } = {},
): Promise<Envoy> {
  const port = await freePort();
  const config = place.path(name, 'envoy.yaml');
  const address = `{socket_address: {address: 127.0.0.1, port_value: ${port}}}`;
  writeFileSync(config, `${bootstrap}\nadmin: {address: ${address}}\n`);
  const args = ['-c', config, '--use-dynamic-base-id', '--concurrency', '1', '--log-level', 'warning'];
  const program = await place.start(name, peerPath('envoy'), args, options);
  const admin = (path: string): Promise<string> => fetchText(`http://127.0.0.1:${port}${path}`);
  await until(`${name} answers`, 60_000, async () => {
    if (program.ending()) throw new Error(program.output());
    return (await admin('/server_info')).includes('version');
  });
  return {
    program,
    admin,
    async versions() {
      const dump = JSON.parse(await admin('/config_dump?resource=dynamic_active_secrets'));
      return Object.fromEntries(
        (dump.configs ?? []).map((one: { name: string; version_info?: string }) => [one.name, one.version_info ?? '']),
      );
    },
  };
}

async function fetchText(url: string): Promise<string> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return response.text();
}

export interface Load {
  /** Requests that were answered with 200. */
  readonly good: number;
  /** One line for each that was not. */
  readonly failures: readonly string[];
  /** What the program behind saw in x-forwarded-client-cert, each once. */
  readonly callers: ReadonlySet<string>;
  /** Waits until the requests under way are answered. */
  stop(): Promise<void>;
}

/** Requests without end: half of the loops with a new connection, and so a new handshake, for each request. */
export function startLoad(port: number, loops = 8, everyMs = 25): Load {
  const failures: string[] = [];
  const callers = new Set<string>();
  let good = 0;
  let stopped = false;
  const loop = async (keepAlive: boolean): Promise<void> => {
    const agent = new Agent({ keepAlive, maxSockets: 1 });
    while (!stopped) {
      try {
        callers.add(await ask(port, agent));
        good++;
      } catch (error) {
        failures.push(
          `${new Date().toISOString()} ${keepAlive ? 'kept' : 'new'} connection: ${(error as Error).message}`,
        );
      }
      await pause(everyMs);
    }
    agent.destroy();
  };
  const running = Array.from({ length: loops }, (_, at) => loop(at % 2 === 0));
  return {
    get good() {
      return good;
    },
    failures,
    callers,
    async stop() {
      stopped = true;
      await Promise.all(running);
    },
  };
}

/** One request; gives the body. */
export function ask(port: number, agent = new Agent({ keepAlive: false })): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', port, agent, timeout: 10_000 }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200) resolve(body);
        else reject(new Error(`status ${response.statusCode}: ${body}`));
      });
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 10 s')));
    request.on('error', reject);
  });
}
