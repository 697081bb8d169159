/**
 * `mutual up`, which is `npm start`: a server and an agent in this process, for a first look. All that passes between the
 * two goes over the sockets and APIs that everybody uses. The agent's token is only ever in memory.
 */
import { join, resolve } from 'node:path';
import { readServerOptions } from '../server/config.ts';
import { Fault, quote } from '../src/errors.ts';
import { createLog, type RootLog } from '../src/log.ts';
import { parseTrustDomain, type TrustDomain } from '../src/spiffe/id.ts';
import { withAdmin } from './admin.ts';
import { type Message, withCaller } from './caller.ts';
import { command } from './command.ts';
import { choice, text, toggle, trustDomain, withDefault } from './flags.ts';
import type { Ports } from './ports.ts';
import { serverAdmin } from './socket-choice.ts';
import { svidTable } from './svid-text.ts';
import { ensureEntry, isThere, makeDirectory, type Plan, type Running, startAndFetch } from './up-agent.ts';

export const up = command({
  summary: 'Start a server and an agent here and get a first SVID',
  about:
    'Runs both until Ctrl-C, with everything they keep in one directory; a second start goes on where the first one ended. Processes of the current user get spiffe://TRUST-DOMAIN/user/NAME. This is for a first look and for development: on real nodes, run "mutual server run" and "mutual agent run" apart.',
  flags: {
    trustDomain: withDefault(trustDomain('The trust domain'), parseTrustDomain('example.org')),
    dataDir: withDefault(text('DIR', 'Where both keep their data'), '.mutual'),
    listen: withDefault(text('HOST:PORT', 'Where the server listens for agents'), '127.0.0.1:8081'),
    witSvids: toggle('Issue and offer WIT-SVIDs, which the standard calls incubating'),
    logLevel: withDefault(
      choice(
        'LEVEL',
        ['error', 'warn', 'info', 'debug', 'trace'],
        'What is logged, into server.log and agent.log in the data directory',
      ),
      'info',
    ),
  },
  examples: [['mutual up', 'A trust domain on this machine']],
  async run(values, ports) {
    const directory = resolve(ports.directory, values.dataDir);
    const began = ports.clock.now();
    await makeDirectory(directory);
    await refuseSecond(directory, ports);
    const logs: RootLog[] = [];
    const openLog = (name: string): RootLog => {
      const log = createLog({
        level: values.logLevel,
        format: 'text',
        file: join(directory, name),
        clock: ports.clock,
      });
      logs.push(log);
      return log;
    };
    const running: Running[] = [];
    try {
      // Flags only: variables of the surroundings, such as the one we tell people to export, are for other programs.
      const serverOptions = readServerOptions({
        flags: {
          trustDomain: values.trustDomain,
          dataDir: join(directory, 'server'),
          listen: values.listen,
          witSvidsEnabled: values.witSvids,
        },
      });
      const { startServer } = await import('../server/server.ts');
      const server = await startServer((await serverOptions).options, {
        clock: ports.clock,
        random: ports.random,
        log: openLog('server.log'),
      });
      running.push(server);
      const { agent, svids } = await withAdmin(server.adminSocket, ports, async (admin) => {
        const plan: Plan = {
          ports,
          admin,
          trustDomain: values.trustDomain,
          directory: join(directory, 'agent'),
          server: { host: reachable(server.address.host), port: server.address.port },
          log: openLog('agent.log'),
          witSvids: values.witSvids,
        };
        await ensureEntry(plan);
        return startAndFetch(plan, (each) => running.push(each));
      });
      greet(
        values.trustDomain,
        { host: server.address.host, port: server.address.port },
        server.adminSocket,
        agent.socket,
        svids,
        ports.clock.now() - began,
        ports,
      );
      await ended(running, ports.stop);
      ports.err('\nStopping\n');
      return 0;
    } finally {
      for (const each of running.reverse()) await each.close();
      for (const log of logs) log.close();
    }
  },
});

/** The database would refuse a second server too, but only after waiting for the first one to let go of it. */
async function refuseSecond(directory: string, ports: Ports): Promise<void> {
  const path = join(directory, 'server/private/api.sock');
  if (!(await isThere(path))) return;
  const runs = await withCaller(serverAdmin, path, ports, (caller) =>
    caller.call('grpc.health.v1.Health', 'Check', { service: '' }, { deadlineMs: 2000 }),
  ).then(
    () => true,
    // A socket that a killed program left behind: nobody answers, and the server replaces it.
    () => false,
  );
  if (runs) {
    throw new Fault('state/refused', `a server already runs with its data in ${quote(directory)}`, {
      hint: 'Use that one, stop it, or give another --data-dir.',
    });
  }
}

/** Resolves when a signal came; rejects when one of the two cannot go on. */
async function ended(running: readonly Running[], stop: AbortSignal): Promise<void> {
  const stopped = new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    else stop.addEventListener('abort', () => resolve(), { once: true });
  });
  await Promise.race([stopped, ...running.map((each) => each.closed)]);
}

function greet(
  domain: TrustDomain,
  server: { host: string; port: number },
  adminSocket: string,
  socket: string,
  svids: Message,
  ms: number,
  ports: Ports,
): void {
  const { out } = ports;
  out(
    `${ports.style('green', 'Mutual is up.')} Trust domain ${domain}, server on ${server.host}:${server.port}, first SVID after ${(ms / 1000).toFixed(1)} s.\n\n`,
  );
  out(`${svidTable(svids, ports)}\n`);
  out(`${ports.style('bold', 'In another terminal:')}\n\n`);
  out(`export SPIFFE_ENDPOINT_SOCKET=unix://${socket}\n`);
  out(`export MUTUAL_ADMIN_SOCKET=${adminSocket}\n\n`);
  const tries = [
    ['npx mutual fetch x509', 'the SVID of a process of yours'],
    ['npx mutual fetch jwt --audience hello', 'a JWT-SVID for an audience'],
    ['npx mutual watch', 'each renewal as it comes'],
    ['npx mutual entry list', 'who may have which identity'],
    ['npx mutual entry create --help', 'give an identity to something else'],
  ] as const;
  for (const [line, does] of tries) out(`  ${line.padEnd(40)}${ports.style('dim', `# ${does}`)}\n`);
  out('\nCtrl-C stops both.\n');
}

/** An address that accepts from everywhere is reached here. */
const reachable = (host: string): string => (host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host);
