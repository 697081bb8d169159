/**
 * A server and an agent of either make, Go's or ours, under one shape: a story is written once and told for each pair.
 * Servers of both makes are administered through their admin socket by the Go command line, agents of both are used
 * through their Workload API by go-spiffe.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { peerPath } from '../../../tools/peers.ts';
import { startMutualAgent, startMutualServer } from './mutual.ts';
import type { Place } from './place.ts';
import { type Event, type Program, run, runOk } from './program.ts';
import { spireCli, startSpireAgent, startSpireServer } from './spire.ts';

export type Make = 'spire' | 'mutual';

/** Lifetimes in seconds; what is absent is the program's own default. */
export interface ServerOptions {
  readonly trustDomain?: string;
  readonly caTtl?: number;
  readonly x509Ttl?: number;
  readonly jwtTtl?: number;
  readonly agentTtl?: number;
  /** PEM file of the CA whose certificates x509pop accepts. */
  readonly x509popCa?: string;
  /** Key type of the authorities, ours only. */
  readonly caKeyType?: string;
  /** Ours only. */
  readonly requirePostQuantum?: boolean;
  /** Another file of the `mutual` command than the checkout's; ours only. */
  readonly command?: string;
  readonly logLevel?: string;
  /** More of its configuration file, ours only. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** The server above, and an agent below that one which gives this server its SVID there. */
  readonly upstream?: { readonly server: Server; readonly agent: Agent };
  /** Leave intervals as delivered, instead of shorter ones that make tests quick. */
  readonly defaults?: boolean;
}

export interface Server {
  readonly kind: Make;
  readonly port: number;
  readonly adminSocket: string;
  readonly dir: string;
  readonly trustDomain: string;
  /** The process that runs now (or ended last). */
  program(): Program;
  /** Starts it again on the same data and does not wait; the old process must have ended. */
  launch(): Promise<void>;
  /** The same, and waits until it answers. */
  restart(): Promise<void>;
}

export interface AgentOptions {
  readonly joinToken?: string;
  /** PEM files of the node's key and certificate. */
  readonly x509pop?: { readonly key: string; readonly certificate: string };
  /** PEM file with the server's bundle. */
  readonly bundle?: string;
  /** Another file of the `mutual` command than the checkout's; ours only. */
  readonly command?: string;
  readonly logLevel?: string;
  /** As delivered: no shorter intervals, and no look at the program of a workload, which Go's agent hashes at each call. */
  readonly defaults?: boolean;
  /** Where it serves the Workload API, ours only. */
  readonly socket?: string;
  /** More of its configuration file, ours only. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** false: do not wait until it serves. */
  readonly ready?: boolean;
}

export interface Agent {
  readonly kind: Make;
  /** Path of the Workload API socket. */
  readonly socket: string;
  readonly dir: string;
  program(): Program;
  launch(): Promise<void>;
  restart(ready?: boolean): Promise<void>;
}

/** Starts a server of the given make. */
export const startServer = (make: Make, place: Place, name: string, options: ServerOptions = {}): Promise<Server> =>
  make === 'spire' ? startSpireServer(place, name, options) : startMutualServer(place, name, options);

/** Starts an agent of the given make against a server of any. */
export const startAgent = (
  make: Make,
  place: Place,
  name: string,
  server: Server,
  options: AgentOptions,
): Promise<Agent> =>
  make === 'spire' ? startSpireAgent(place, name, server, options) : startMutualAgent(place, name, server, options);

/** Runs an admin command through the Go command line with JSON output. Throws when it fails. */
// biome-ignore lint/suspicious/noExplicitAny: the shape is the command's, and tests say which they expect.
export async function admin(server: Server, ...args: string[]): Promise<any> {
  const { code, stdout, stderr } = await spireCli(server.adminSocket, [...args, '-output', 'json']);
  if (code !== 0)
    throw new Error(`spire-server ${args.join(' ')} failed on the ${server.kind} server: ${stdout}${stderr}`);
  return JSON.parse(stdout);
}

/** Makes a join token, for a node alias when given, and gives its value. */
export async function joinToken(server: Server, alias?: string): Promise<string> {
  const made = await admin(server, 'token', 'generate', ...(alias ? ['-spiffeID', alias] : []));
  return made.value;
}

/** Creates an entry and gives its id. Throws unless it was made. */
export async function createEntry(
  server: Server,
  spiffeId: string,
  parentId: string,
  selectors: readonly string[],
  ...more: string[]
): Promise<string> {
  const flags = selectors.flatMap((selector) => ['-selector', selector]);
  const made = await admin(server, 'entry', 'create', '-spiffeID', spiffeId, '-parentID', parentId, ...flags, ...more);
  const [result] = made.results;
  if (result.status.code !== 0) throw new Error(`entry ${spiffeId} was not created: ${result.status.message}`);
  return result.entry.id;
}

/** Writes the server's bundle as PEM beside its data and gives the path. */
export async function writeBundle(server: Server): Promise<string> {
  const { code, stdout, stderr } = await spireCli(server.adminSocket, ['bundle', 'show']);
  if (code !== 0) throw new Error(`bundle show failed: ${stderr}`);
  const path = join(server.dir, 'bundle.pem');
  writeFileSync(path, stdout);
  return path;
}

/** Asks an agent through go-spiffe (peer-workload) and gives the one event it prints. Throws with go-spiffe's error. */
export async function workload(
  agent: Agent | string,
  verb: string,
  args: readonly string[] = [],
  who: { uid?: number; gid?: number } = {},
): Promise<Event> {
  const socket = typeof agent === 'string' ? agent : agent.socket;
  const { stdout, stderr } = await run(peerPath('peer-workload'), [verb, '-socket', `unix://${socket}`, ...args], who);
  const line = stdout.trimEnd().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) throw new Error(`peer-workload ${verb}: ${stdout}${stderr}`);
  const event = JSON.parse(line) as Event;
  if (event.event === 'error') throw new Error(String(event.message));
  return event;
}

/** Validates a token offline with go-spiffe against the server's own bundle. */
export async function verifyJwtOffline(server: Server, token: string, audience: string): Promise<Event> {
  const bundle = join(server.dir, `${server.trustDomain}.json`);
  const { stdout } = await spireCli(server.adminSocket, ['bundle', 'show', '-format', 'spiffe']);
  writeFileSync(bundle, stdout);
  const args = ['verify-jwt', '-bundle', bundle, '-audience', audience, '-token', token];
  return JSON.parse(await runOk(peerPath('peer-workload'), args));
}
