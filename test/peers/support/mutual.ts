/** Our own programs as a user runs them: the `mutual` command in processes of their own. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Agent, AgentOptions, Server, ServerOptions } from './pair.ts';
import { freePort, type Place } from './place.ts';
import { type Finished, run } from './program.ts';
import { spireCli } from './spire.ts';
import { until } from './until.ts';

/** The command's file. */
export const mutualProgram: string = join(import.meta.dirname, '../../../bin/mutual.js');

/** Runs a `mutual` command to its end. */
export const mutual = (
  args: readonly string[],
  options: { env?: Record<string, string>; uid?: number; gid?: number; input?: string; deadlineMs?: number } = {},
): Promise<Finished> => run(process.execPath, [mutualProgram, ...args], options);

/** Starts our server and waits until it answers on its admin socket. */
export async function startMutualServer(place: Place, name: string, options: ServerOptions = {}): Promise<Server> {
  const dir = place.path(name, '').replace(/\/$/, '');
  const adminSocket = place.path(name, 's', 'api.sock');
  const port = await freePort();
  const trustDomain = options.trustDomain ?? 'example.org';
  const config = place.path(name, 'server.json');
  const duration = (key: string, value: number | undefined) => (value === undefined ? {} : { [key]: `${value}s` });
  writeFileSync(
    config,
    JSON.stringify(
      {
        trustDomain,
        ...duration('caTtl', options.caTtl),
        ...duration('defaultX509SvidTtl', options.x509Ttl),
        ...duration('defaultJwtSvidTtl', options.jwtTtl),
        ...duration('agentTtl', options.agentTtl),
        ...(options.caKeyType ? { caKeyType: options.caKeyType } : {}),
        ...(options.requirePostQuantum ? { tls: { requirePostQuantum: true } } : {}),
        ...(options.upstream ? { upstream: upstreamOptions(options.upstream) } : {}),
        rateLimits: { attest: 0, csr: 0, jwt: 0, wit: 0, push: 0, post: 0 },
        nodeAttestors: {
          joinToken: {},
          ...(options.x509popCa ? { x509pop: { mode: 'external_pki', caBundlePaths: [options.x509popCa] } } : {}),
        },
        log: { level: (options.logLevel ?? 'debug').toLowerCase() },
        ...options.config,
      },
      null,
      2,
    ),
  );
  const args = ['server', 'run', '--config', config, '--data-dir', `${dir}/data`];
  args.push('--listen', `127.0.0.1:${port}`, '--admin-socket', adminSocket);
  const launch = () => place.start(name, process.execPath, [options.command ?? mutualProgram, ...args]);
  const up = async () => {
    const program = await launch();
    await until(`${name} is healthy`, 60_000, async () => {
      if (program.ending()) throw new Error(program.output());
      return (await spireCli(adminSocket, ['healthcheck'])).code === 0;
    });
    return program;
  };
  let program = await up();
  return {
    kind: 'mutual',
    port,
    adminSocket,
    dir,
    trustDomain,
    program: () => program,
    async launch() {
      program = await launch();
    },
    async restart() {
      program = await up();
    },
  };
}

function upstreamOptions({ server, agent }: NonNullable<ServerOptions['upstream']>): object {
  return {
    authority: 'spire',
    spire: { server: `127.0.0.1:${server.port}`, workloadApiSocket: agent.socket },
  };
}

/** Starts our agent against a server of either make. */
export async function startMutualAgent(
  place: Place,
  name: string,
  server: Server,
  options: AgentOptions,
): Promise<Agent> {
  const dir = place.path(name, '').replace(/\/$/, '');
  const socket = options.socket ?? place.path(name, 'p', 'api.sock');
  const config = place.path(name, 'agent.json');
  writeFileSync(
    config,
    JSON.stringify(
      {
        trustDomain: server.trustDomain,
        ...(options.bundle ? { trustBundle: options.bundle } : { insecureBootstrap: true }),
        ...(options.x509pop
          ? {
              nodeAttestor: {
                x509pop: { privateKeyPath: options.x509pop.key, certificatePath: options.x509pop.certificate },
              },
            }
          : {}),
        ...(options.defaults ? {} : { syncInterval: '1s' }),
        workloadAttestors: { unix: { discoverWorkloadPath: !options.defaults } },
        log: { level: (options.logLevel ?? 'debug').toLowerCase() },
        ...options.config,
      },
      null,
      2,
    ),
  );
  const args = [
    'agent',
    'run',
    '--config',
    config,
    '--data-dir',
    `${dir}/data`,
    '--server',
    `127.0.0.1:${server.port}`,
  ];
  args.push('--socket', socket, '--admin-socket', place.path(name, 'a', 'admin.sock'));
  const env = options.joinToken ? { MUTUAL_JOIN_TOKEN: options.joinToken } : {};
  const launch = () => place.start(name, process.execPath, [options.command ?? mutualProgram, ...args], { env });
  const up = async (ready: boolean) => {
    const program = await launch();
    if (ready)
      await until(`${name} is healthy`, 60_000, async () => {
        if (program.ending()) throw new Error(program.output());
        return (await mutual(['health', '--socket', socket])).code === 0;
      });
    return program;
  };
  let program = await up(options.ready ?? true);
  return {
    kind: 'mutual',
    socket,
    dir,
    program: () => program,
    async launch() {
      program = await launch();
    },
    async restart(ready = true) {
      program = await up(ready);
    },
  };
}
