/** A Docker engine of the test's own, without networks, and images made of a program and the libraries it is linked with. */
import { copyFileSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { peerPath } from '../../../tools/peers.ts';
import type { Place } from './place.ts';
import { runOk } from './program.ts';
import { until } from './until.ts';

export interface Dockerd {
  readonly socketPath: string;
  /** The `docker` command on this engine; gives its standard output, trimmed. Throws when it fails. */
  docker(...args: string[]): Promise<string>;
  /** An image with `program` at /program; gives the digest of its configuration. */
  image(name: string, program: string): Promise<string>;
}

export async function startDockerd(place: Place): Promise<Dockerd> {
  const socketPath = place.path('dockerd', 'docker.sock');
  const of = (name: string): string => place.path('dockerd', name);
  await place.start('dockerd', peerPath('dockerd'), [
    ...['--data-root', of('data'), '--exec-root', of('exec'), '--pidfile', of('pid'), '--host', `unix://${socketPath}`],
    ...['--bridge', 'none', '--iptables=false', '--ip6tables=false', '--storage-driver', 'vfs'],
  ]);
  const docker = async (...args: string[]): Promise<string> =>
    (await runOk('docker', ['--host', `unix://${socketPath}`, ...args])).trim();
  await until('dockerd answers', 60_000, () => docker('version'));
  return {
    socketPath,
    docker,
    image: async (name, program) => docker('import', await makeImage(place, name, program), name),
  };
}

/** The file of an image with `program` at /program, as `import` takes it. */
export async function makeImage(place: Place, name: string, program: string): Promise<string> {
  const root = place.path('images', name, 'root');
  mkdirSync(root);
  copyFileSync(program, join(root, 'program'));
  // Absent for a static program.
  const linked = await runOk('ldd', [program]).catch(() => '');
  for (const [, library] of linked.matchAll(/(\/\S+) \(0x/g)) {
    mkdirSync(join(root, dirname(library!)), { recursive: true });
    copyFileSync(library!, join(root, library!));
  }
  const tar = place.path('images', name, 'image.tar');
  await runOk('tar', ['-C', root, '-cf', tar, '.']);
  return tar;
}
