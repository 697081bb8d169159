/**
 * One of our servers with two agents, ours and Go's, and a go-spiffe program below each that calls the other by mutual TLS
 * all the time: what is done at the server is seen by both agents, and what it breaks is counted.
 */
import { copyFileSync } from 'node:fs';
import { connect } from 'node:tls';
import { type Certificate, parseCertificate, splitCertificates } from '../../../src/crypto/certificate.ts';
import { peerPath } from '../../../tools/peers.ts';
import {
  type Agent,
  admin,
  createEntry,
  joinToken,
  type Make,
  type Server,
  startAgent,
  startServer,
  workload,
  writeBundle,
} from './pair.ts';
import type { Place } from './place.ts';
import type { Program } from './program.ts';
import { until } from './until.ts';

export const makes: readonly Make[] = ['mutual', 'spire'];
const domain = 'spiffe://example.org';
const idOf = (make: Make) => `${domain}/workload/${make}`;

/** An X.509-SVID as the workload below an agent gets it, verified by go-spiffe against the bundle that came with it. */
export interface Fetched {
  readonly chain: readonly Certificate[];
  /** Whoever signed the leaf, subject key id in hex. */
  readonly issuer: string;
  readonly serial: string;
  /** Subject key ids of the bundle, in hex, sorted. */
  readonly authorities: readonly string[];
}

/** What the process `peer-workload` gets from an agent of example.org. */
export async function fetchX509(agent: Agent): Promise<Fetched> {
  const { svids, bundles } = await workload(agent, 'x509');
  const [{ issuer, serial, chain }] = svids;
  const certificates = (chain as string[]).flatMap((text) => splitCertificates(Buffer.from(text, 'base64')));
  return { chain: certificates.map(parseCertificate), issuer, serial, authorities: bundles['example.org'] };
}

export interface TwoAgents {
  readonly server: Server;
  readonly agents: Readonly<Record<Make, Agent>>;
  fetch(make: Make): Promise<Fetched>;
  /** The serial number of the SVID that an agent itself has, as the server knows it. */
  agentSerial(make: Make): Promise<string>;
  /** The leaf that the server's listener presents. */
  presented(): Promise<Certificate>;
  /** Authorities in the server's bundle. */
  bundle(): Promise<{
    readonly x509_authorities: readonly { readonly asn1: string; readonly tainted: boolean }[];
    readonly jwt_authorities: readonly { readonly key_id: string; readonly tainted: boolean }[];
  }>;
  /** Handshakes between the two workloads that worked so far, and every one that did not. */
  handshakes(): { readonly good: number; readonly refused: readonly string[] };
  /** Waits until the two have spoken again, each with the SVID that it has now. */
  speakAgain(): Promise<void>;
}

/** Starts all of it in the place; resolves when the two workloads speak. */
export async function startTwoAgents(place: Place, config: Readonly<Record<string, unknown>> = {}): Promise<TwoAgents> {
  const server = await startServer('mutual', place, 'server', { config });
  const bundlePath = await writeBundle(server);
  const program = {} as Record<Make, string>;
  const tokens = {} as Record<Make, string>;
  const agents = {} as Record<Make, Agent>;
  for (const make of makes) {
    const node = `${domain}/node/${make}`;
    program[make] = place.path('bin', make);
    copyFileSync(peerPath('peer-mtls'), program[make]);
    await createEntry(server, idOf(make), node, [`unix:path:${program[make]}`]);
    await createEntry(server, `${domain}/fetch/${make}`, node, [`unix:path:${peerPath('peer-workload')}`]);
    tokens[make] = await joinToken(server, node);
    const options = { bundle: bundlePath, joinToken: tokens[make] };
    agents[make] = await startAgent(make, place, `agent-${make}`, server, options);
  }
  const speak = (make: Make, verb: string, ...more: string[]): Promise<Program> => {
    const other = makes.find((one) => one !== make)!;
    const socket = `unix://${agents[make].socket}`;
    return place.start(`mtls-${make}`, program[make], [verb, '-socket', socket, '-authorize', idOf(other), ...more]);
  };
  for (const make of makes) await until(`an SVID at ${make}`, 60_000, () => workload(agents[make], 'x509'));
  const listening = await speak('spire', 'server');
  const { address } = await listening.event('listening', () => true, 60_000);
  const calling = await speak('mutual', 'client', '-address', String(address), '-every', '100ms');
  await calling.event('echo', () => true, 60_000);

  return {
    server,
    agents,
    fetch: (make) => fetchX509(agents[make]),
    async agentSerial(make) {
      const { agents: listed } = await admin(server, 'agent', 'list');
      const path = `/spire/agent/join_token/${tokens[make]}`;
      return listed.find((one: { id: { path: string } }) => one.id.path === path).x509svid_serial_number;
    },
    presented: () => presentedBy(server.port),
    bundle: () => admin(server, 'bundle', 'show'),
    handshakes: () => ({
      good: calling.events('echo').length,
      refused: [...calling.events('refused'), ...listening.events('refused')].map(({ message }) => message),
    }),
    async speakAgain() {
      const before = calling.events('echo').length;
      await until('the two speak', 60_000, () => calling.events('echo').length > before + 3);
    },
  };
}

/** The leaf that a TLS listener presents. */
export async function presentedBy(port: number): Promise<Certificate> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  try {
    await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    return parseCertificate(socket.getPeerX509Certificate()!.raw);
  } finally {
    socket.destroy();
  }
}
