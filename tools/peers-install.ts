/**
 * npm run peers:install [-- NAME...]: installs the peers of tier 1, or those named, into the cache (see peers.ts).
 * A piece is built beside its place, moved into it and stamped with its version at last, so that an interrupted run leaves
 * nothing that looks finished, and a warm run only reads stamps.
 */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { goModule, isInstalled, type Peer, peers, peersCache, stampPath } from './peers.ts';

/** The Go environment: no toolchain is fetched, and one build at a time leaves the machine to others. */
const goEnvironment = { GOTOOLCHAIN: 'local', GOWORK: 'off' };
/** A scratch module may settle its own requirements, and has no checksums of its own yet. */
const scratchEnvironment = { ...goEnvironment, GOFLAGS: '-mod=mod -buildvcs=false', GOSUMDB: 'off' };

/** Runs a command to its end; its output is shown only when it fails. Throws with the last lines of it. */
function run(command: string, args: readonly string[], cwd: string, env: Record<string, string> = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) return resolve();
      const tail = output.trimEnd().split('\n').slice(-20).join('\n');
      reject(new Error(`${command} ${args.join(' ')} ended with ${signal ?? `code ${code}`}\n${tail}`));
    });
  });
}

const needs = {
  go: { command: 'go', args: ['version'], hint: 'install Go 1.26 or newer and have `go` in PATH' },
  ours: { command: 'go', args: ['version'], hint: 'install Go 1.26 or newer and have `go` in PATH' },
  python: { command: 'python3', args: ['-m', 'venv', '-h'], hint: 'install Python 3.10 or newer with its venv module' },
  npm: { command: 'npm', args: ['--version'], hint: 'have `npm` in PATH' },
  maven: { command: 'mvn', args: ['--version'], hint: 'install a JDK, 17 or newer, and Maven' },
  apt: { command: 'apt-get', args: ['--version'], hint: 'install the package by the means of this system' },
};

function requireTool(peer: Peer): void {
  const { command, args, hint } = needs[peer.recipe.kind];
  if (standsAlready(peer)) return;
  if (spawnSync(command, args, { stdio: 'ignore' }).status !== 0)
    throw new Error(`${peer.name} needs \`${command} ${args.join(' ')}\` to work: ${hint}`);
}

/** A build made by hand in the same place counts when it says that it is the wanted version. */
function standsAlready(peer: Peer): boolean {
  if (peer.recipe.kind === 'apt') return existsSync(peer.path);
  if (peer.recipe.kind !== 'go' || !existsSync(peer.path)) return false;
  const { stdout, stderr } = spawnSync(peer.path, ['--version'], { encoding: 'utf8' });
  return `${stdout}${stderr}`.includes(peer.version);
}

async function install(peer: Peer): Promise<void> {
  const { recipe, path } = peer;
  const scratch = join(peersCache, 'src', peer.name);
  if (recipe.kind !== 'apt') mkdirSync(dirname(path), { recursive: true });
  switch (recipe.kind) {
    case 'go': {
      if (standsAlready(peer)) return;
      mkdirSync(scratch, { recursive: true });
      if (!existsSync(join(scratch, 'go.mod')))
        await run('go', ['mod', 'init', 'mutual.test/scratch'], scratch, scratchEnvironment);
      await run('go', ['get', '-tool', `${recipe.package}@v${peer.version}`], scratch, scratchEnvironment);
      const flags = ['-p', '1', '-trimpath', '-ldflags', '-s -w'];
      await run('go', ['build', ...flags, '-o', `${path}.new`, recipe.package], scratch, scratchEnvironment);
      renameSync(`${path}.new`, path);
      return;
    }
    case 'ours': {
      const environment = { ...goEnvironment, GOFLAGS: '-mod=readonly -buildvcs=false' };
      await run('go', ['build', '-p', '1', '-o', `${path}.new`, recipe.package], goModule, environment);
      renameSync(`${path}.new`, path);
      return;
    }
    case 'python': {
      const venv = dirname(dirname(path));
      const python = join(venv, 'bin', 'python');
      rmSync(venv, { recursive: true, force: true });
      await run('python3', ['-m', 'venv', venv], peersCache);
      await run(
        python,
        ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...recipe.packages],
        peersCache,
      );
      await run(python, ['-c', recipe.check], peersCache);
      return;
    }
    case 'npm': {
      const folder = join(peersCache, peer.name);
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'package.json'), '{"private":true}\n');
      const flags = ['--no-audit', '--no-fund', '--no-save', '--ignore-scripts', '--loglevel=error'];
      await run('npm', ['install', ...flags, ...recipe.packages], folder);
      return;
    }
    case 'maven': {
      const folder = dirname(path);
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'pom.xml'), mavenProject(recipe.group, recipe.artifacts, peer.version));
      // `-q` still tells what fails; the plugin is pinned, or Maven asks for its newest each time.
      const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';
      await run('mvn', ['-B', '-q', goal, '-DincludeScope=runtime', '-DoutputDirectory=jars.new'], folder);
      renameSync(join(folder, 'jars.new'), path);
      return;
    }
    case 'apt': {
      if (standsAlready(peer)) return;
      const words = ['install', '-y', '-qq', '--no-install-recommends', recipe.package];
      const quiet = { DEBIAN_FRONTEND: 'noninteractive' };
      // The lists of a fresh machine are empty.
      await run('apt-get', words, peersCache, quiet).catch(async () => {
        await run('apt-get', ['update', '-qq'], peersCache, quiet);
        await run('apt-get', words, peersCache, quiet);
      });
      if (!existsSync(path)) throw new Error(`${recipe.package} was installed, and ${path} is not there`);
      return;
    }
  }
}

/** A project that is nothing but its dependencies. */
function mavenProject(group: string, artifacts: readonly string[], version: string): string {
  const dependencies = artifacts.map(
    (artifact) =>
      `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version></dependency>`,
  );
  return `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>mutual.test</groupId><artifactId>scratch</artifactId><version>0</version><packaging>pom</packaging>
<dependencies>${dependencies.join('')}</dependencies></project>
`;
}

/**
 * Installs what is missing of the named peers, all of tier 1 when none is named.
 * Gives the names that could not be had, each already told on standard error; never throws for one of them.
 */
export async function installPeers(names: readonly string[] = []): Promise<string[]> {
  const unknown = names.filter((name) => !peers.some((peer) => peer.name === name));
  if (unknown.length > 0)
    throw new Error(`no peer is called "${unknown[0]}"; known: ${peers.map((peer) => peer.name).join(', ')}`);
  const wanted = peers.filter((peer) => (names.length > 0 ? names.includes(peer.name) : peer.tier === 1));
  mkdirSync(join(peersCache, 'stamps'), { recursive: true });
  const missing: string[] = [];
  for (const [at, peer] of wanted.entries()) {
    if (isInstalled(peer)) continue;
    const start = performance.now();
    process.stderr.write(`peers: ${at + 1}/${wanted.length} ${peer.name} ${peer.version} ...`);
    try {
      requireTool(peer);
      rmSync(stampPath(peer), { force: true });
      await install(peer);
      writeFileSync(stampPath(peer), `${peer.version}\n`);
      process.stderr.write(` ${((performance.now() - start) / 1000).toFixed(1)} s\n`);
    } catch (error) {
      missing.push(peer.name);
      process.stderr.write(` failed\n${(error as Error).message}\n`);
    }
  }
  return missing;
}

if (import.meta.main) {
  try {
    const missing = await installPeers(process.argv.slice(2));
    if (missing.length > 0) throw new Error(`not installed: ${missing.join(', ')}`);
    process.stderr.write(`peers: all there, in ${peersCache}\n`);
  } catch (error) {
    process.stderr.write(`peers: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
