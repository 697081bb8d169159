/** The Go programs: spire-server and spire-agent 1.13.3 with a generated configuration, and their command lines. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { peerPath } from '../../../tools/peers.ts';
import type { Agent, AgentOptions, Server, ServerOptions } from './pair.ts';
import { freePort, type Place } from './place.ts';
import { type Finished, run } from './program.ts';
import { until } from './until.ts';

/** Runs a command of the Go `spire-server` against an admin socket, its own server's or ours. */
export function spireCli(adminSocket: string, args: readonly string[], input?: string): Promise<Finished> {
  const words = args.findIndex((arg) => arg.startsWith('-'));
  const split = words < 0 ? args.length : words;
  const all = [...args.slice(0, split), '-socketPath', adminSocket, ...args.slice(split)];
  return run(peerPath('spire-server'), all, input === undefined ? {} : { input });
}

const seconds = (value: number | undefined, key: string): string => (value === undefined ? '' : `${key} = "${value}s"`);

function serverConfig(dir: string, port: number, adminSocket: string, options: ServerOptions): string {
  const fast = options.defaults ? '' : 'experimental { cache_reload_interval = "1s" }';
  return `
server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = "${adminSocket}"
  trust_domain = "${options.trustDomain ?? 'example.org'}"
  data_dir = "${dir}/data"
  log_level = "${options.logLevel ?? 'DEBUG'}"
  ${seconds(options.caTtl, 'ca_ttl')}
  ${seconds(options.x509Ttl, 'default_x509_svid_ttl')}
  ${seconds(options.jwtTtl, 'default_jwt_svid_ttl')}
  ${seconds(options.agentTtl, 'agent_ttl')}
  ratelimit { attestation = false signing = false }
  ${fast}
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${dir}/data/datastore.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "${dir}/data/keys.json" } }
  NodeAttestor "join_token" { plugin_data {} }
  ${options.upstream ? upstreamConfig(options.upstream) : ''}
  ${options.x509popCa ? `NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "${options.x509popCa}" } }` : ''}
}
`;
}

function upstreamConfig({ server, agent }: NonNullable<ServerOptions['upstream']>): string {
  return `UpstreamAuthority "spire" { plugin_data {
    server_address = "127.0.0.1" server_port = "${server.port}" workload_api_socket = "${agent.socket}"
  } }`;
}

/** Starts a Go server in `dir` of the place and waits until it is healthy. */
export async function startSpireServer(place: Place, name: string, options: ServerOptions = {}): Promise<Server> {
  const dir = place.path(name, '');
  mkdirSync(`${dir}/data`, { recursive: true });
  const adminSocket = place.path(name, 's', 'api.sock');
  const port = await freePort();
  const config = place.path(name, 'server.conf');
  writeFileSync(config, serverConfig(dir.replace(/\/$/, ''), port, adminSocket, options));
  const launch = () => place.start(name, peerPath('spire-server'), ['run', '-config', config]);
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
    kind: 'spire',
    port,
    adminSocket,
    dir,
    trustDomain: options.trustDomain ?? 'example.org',
    program: () => program,
    async launch() {
      program = await launch();
    },
    async restart() {
      program = await up();
    },
  };
}

function agentConfig(server: Server, dir: string, options: AgentOptions, bundle: string | undefined): string {
  const pop = options.x509pop;
  const attestor = pop
    ? `NodeAttestor "x509pop" { plugin_data { private_key_path = "${pop.key}" certificate_path = "${pop.certificate}" } }`
    : 'NodeAttestor "join_token" { plugin_data {} }';
  return `
agent {
  data_dir = "${dir}/data"
  trust_domain = "${server.trustDomain}"
  server_address = "127.0.0.1"
  server_port = "${server.port}"
  socket_path = "${dir}/p/api.sock"
  admin_socket_path = "${dir}/a/admin.sock"
  log_level = "${options.logLevel ?? 'DEBUG'}"
  ${bundle ? `trust_bundle_path = "${bundle}"` : 'insecure_bootstrap = true'}
  ${options.joinToken ? `join_token = "${options.joinToken}"` : ''}
  ${options.defaults ? '' : 'experimental { sync_interval = "1s" }'}
}
plugins {
  ${attestor}
  KeyManager "disk" { plugin_data { directory = "${dir}/data" } }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = ${!options.defaults} } }
}
`;
}

/** Starts a Go agent against a server of either kind. With `ready: false` it does not wait for its socket. */
export async function startSpireAgent(
  place: Place,
  name: string,
  server: Server,
  options: AgentOptions,
): Promise<Agent> {
  const dir = place.path(name, '').replace(/\/$/, '');
  mkdirSync(`${dir}/data`, { recursive: true });
  const config = place.path(name, 'agent.conf');
  writeFileSync(config, agentConfig(server, dir, options, options.bundle));
  const socket = place.path(name, 'p', 'api.sock');
  const launch = () => place.start(name, peerPath('spire-agent'), ['run', '-config', config]);
  const up = async (ready: boolean) => {
    const program = await launch();
    if (ready)
      await until(`${name} is healthy`, 60_000, async () => {
        if (program.ending()) throw new Error(program.output());
        return (await run(peerPath('spire-agent'), ['healthcheck', '-socketPath', socket])).code === 0;
      });
    return program;
  };
  let program = await up(options.ready ?? true);
  return {
    kind: 'spire',
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
