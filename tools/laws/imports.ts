/**
 * Why: an arrow between folders is a promise that one can be read, tested and changed without the other. `server/` and
 * `agent/` meet only through `proto/`, `src/` knows neither, and a package has one home, so that it can be replaced there.
 */
import { readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join, posix } from 'node:path';
import { findAll, isProgram, type Law, type Offence, root, type Source } from './source.ts';

/**
 * What a folder may import of ours beside itself; the longest prefix of a path counts. The tables that are no folder
 * (errors, ids of a program's options) may be named as files.
 */
export const arrows: Readonly<Record<string, readonly string[]>> = {
  'src/errors.ts': [],
  'src/run/': ['src/errors.ts'],
  'src/crypto/': ['src/errors.ts'],
  'src/spiffe/': ['src/errors.ts', 'src/crypto/'],
  'src/keys/': ['src/errors.ts', 'src/crypto/', 'src/run/'],
  'src/tls/': ['src/errors.ts', 'src/crypto/', 'src/spiffe/', 'src/run/'],
  // A caller is who it proved to be: the transport hands on checked ids and certificates.
  'src/rpc/': ['src/errors.ts', 'src/version.ts', 'src/crypto/', 'src/spiffe/', 'src/run/', 'src/tls/'],
  // From wire messages to values and back, for both programs and the command line.
  'src/wire/': ['src/errors.ts', 'src/crypto/', 'src/spiffe/', 'src/rpc/'],
  'src/config.ts': ['src/errors.ts', 'src/config/'],
  'src/config/': ['src/errors.ts', 'src/config.ts', 'src/spiffe/'],
  'src/log.ts': ['src/errors.ts', 'src/log/', 'src/run/'],
  'src/log/': ['src/errors.ts'],
  'src/observe/': ['src/errors.ts', 'src/config/', 'src/run/'],
  'server/config.ts': ['src/', 'server/upstream/'],
  'server/store/': ['src/'],
  'server/upstream/': ['src/'],
  'server/authority/': ['src/', 'server/store/', 'server/upstream/'],
  'server/issue/': ['src/', 'server/authority/'],
  'server/attest/': ['src/', 'server/store/'],
  'server/entries/': ['src/', 'server/store/'],
  'server/revocation/': ['src/', 'server/store/', 'server/authority/', 'server/entries/'],
  'server/rotation/': ['src/', 'server/store/', 'server/authority/', 'server/entries/'],
  'server/publish/': ['src/', 'server/authority/', 'server/store/'],
  'server/authorities.ts': ['src/', 'server/store/', 'server/authority/', 'server/issue/', 'server/upstream/'],
  'server/api/': [
    'src/',
    'server/store/',
    'server/authority/',
    'server/authorities.ts',
    'server/issue/',
    'server/attest/',
    'server/entries/',
    'server/revocation/',
    'server/rotation/',
  ],
  'server/': ['src/', 'server/'],
  'agent/config.ts': ['src/'],
  'agent/attest/': ['src/'],
  'agent/workload/': ['src/'],
  'agent/': ['src/', 'agent/'],
  'cli/': ['src/', 'server/', 'agent/', 'cli/'],
  'sdk/': ['src/', 'sdk/'],
  'src/': ['src/'],
};

/** The files of a program that its own folders must not see: they sit on top. */
const tops = [/^server\/(server|main)\.ts$/, /^agent\/(agent|main)\.ts$/];

/** Who imports a package. One that is not here is at home where its first use is, and nobody minds. */
const homes: Readonly<Record<string, readonly string[]>> = {
  '@peculiar/x509': ['src/crypto/'],
  'reflect-metadata': ['src/crypto/'],
  jose: ['src/crypto/'],
  '@grpc/grpc-js': ['src/rpc/'],
  '@grpc/proto-loader': ['src/rpc/'],
  '@grpc/reflection': ['src/rpc/'],
  'grpc-health-check': ['src/rpc/'],
  protobufjs: ['src/rpc/'],
  koffi: ['src/run/'],
  pino: ['src/log.ts'],
  'prom-client': ['src/observe/'],
  'dbus-native': ['agent/workload/'],
  yaml: ['src/config/'],
  kysely: ['server/store/'],
  pg: ['server/store/'],
  commander: ['cli/'],
  'cli-table3': ['cli/'],
  '@bomb.sh/tab': ['cli/'],
};

export interface Import {
  readonly line: number;
  /** As written. */
  readonly to: string;
}

/** Static, dynamic and re-exporting imports, types too, and `require`. */
export function importsOf({ code }: Source): Import[] {
  const shapes = [
    /^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*(['"])([^'"\n]+)\1/gm,
    /^\s*import\s*(['"])([^'"\n]+)\1/gm,
    /\b(?:import|require)\s*\(\s*(['"`])([^'"`\n]+)\1/g,
    /\bnew\s+URL\s*\(\s*(['"])(\.[^'"\n]+\.ts)\1/g,
  ];
  return shapes.flatMap((shape) =>
    [...findAll(code, shape)].map(({ match, line }) => {
      // The line of the specifier: a long import's own line says little.
      const lines = match[0].split('\n').length - 1;
      return { line: line + lines, to: match[2]! };
    }),
  );
}

/** The path of ours that an import means, or undefined for a package. */
export function targetOf(from: string, to: string): string | undefined {
  return to.startsWith('.') ? posix.join(posix.dirname(from), to) : undefined;
}

function packageName(to: string): string {
  return to.split('/', to.startsWith('@') ? 2 : 1).join('/');
}

const builtins = new Set(builtinModules);

/** Rings of files that load each other, each told once at its first file by path. Types alone load nothing. */
export function rings(sources: readonly Source[]): string[][] {
  const edges = new Map<string, string[]>();
  for (const source of sources) {
    const types = new Set(
      [...findAll(source.code, /^\s*(?:import|export)\s+type\b[^'"`;]*?\bfrom\s*(['"])([^'"\n]+)\1/gm)].map(
        ({ match }) => match[2]!,
      ),
    );
    // A dynamic import loads later; by then the ring is whole.
    const later = new Set(
      [...findAll(source.code, /\bimport\s*\(\s*(['"`])([^'"`\n]+)\1/g)].map(({ match }) => match[2]!),
    );
    const targets = importsOf(source)
      .filter(({ to }) => !types.has(to) && !later.has(to))
      .map(({ to }) => targetOf(source.path, to));
    edges.set(
      source.path,
      targets.filter((target) => target !== undefined),
    );
  }
  const found: string[][] = [];
  const done = new Set<string>();
  const walk = (path: string, trail: string[]): void => {
    const from = trail.indexOf(path);
    if (from >= 0) found.push(trail.slice(from));
    if (from >= 0 || done.has(path)) return;
    for (const next of edges.get(path) ?? []) walk(next, [...trail, path]);
    done.add(path);
  };
  for (const path of edges.keys()) walk(path, []);
  return found;
}

export const cycles: Law = {
  name: 'cycles',
  check: (sources) =>
    rings(sources.filter(isProgram)).map((ring) => ({
      path: ring[0]!,
      line: 1,
      says: `is in a ring of imports: ${[...ring, ring[0]].join(' -> ')}; neither can be understood first`,
    })),
};

export const imports: Law = {
  name: 'imports',
  check(sources) {
    const { dependencies, optionalDependencies, devDependencies } = JSON.parse(
      readFileSync(join(root, 'package.json'), 'utf8'),
    ) as Record<'dependencies' | 'optionalDependencies' | 'devDependencies', Record<string, string>>;
    // Installed with one of ours and part of its interface.
    const declared = new Set([...Object.keys({ ...dependencies, ...optionalDependencies }), 'protobufjs']);
    const toolsToo = new Set([...declared, ...Object.keys(devDependencies)]);
    return sources.flatMap((source) => {
      const program = isProgram(source);
      return importsOf(source).flatMap(({ line, to }): Offence[] => {
        const refuse = (says: string): Offence[] => [{ path: source.path, line, says }];
        const target = targetOf(source.path, to);
        if (target !== undefined) {
          if (!program) return [];
          if (!programAllows(source.path, target))
            return refuse(`imports ${target}, which ${ruleFor(source.path)} may not`);
          return /(^|\/)index\.ts$/.test(target) ? refuse(`imports ${target}: no barrels; name the file`) : [];
        }
        if (to.startsWith('node:')) return [];
        if (builtins.has(to)) return refuse(`imports "${to}" without "node:"`);
        // koffi's machine code comes in packages of its own, one a platform.
        const name = packageName(to).replace(/^@koromix\/koffi-.*$/, 'koffi');
        if (!(program ? declared : toolsToo).has(name))
          return refuse(`imports ${name}, which package.json does not declare`);
        const home = homes[name];
        if (!program || home === undefined || home.some((prefix) => source.path.startsWith(prefix))) return [];
        return refuse(`imports ${name}, which only ${home.join(' and ')} may`);
      });
    });
  },
};

function ruleFor(path: string): string {
  const prefixes = Object.keys(arrows).filter((prefix) => path.startsWith(prefix));
  return prefixes.sort((a, b) => b.length - a.length)[0] ?? path;
}

function programAllows(from: string, to: string): boolean {
  const rule = ruleFor(from);
  // What a program was told is no secret inside it.
  if (/^(server|agent)\/config\.ts$/.test(to) && from.split('/')[0] === to.split('/')[0]) return true;
  // The file itself, and its siblings in the same folder of the rule.
  if (rule.endsWith('/') && to.startsWith(rule)) {
    const below = ruleFor(to);
    const reachesTop = tops.some((top) => top.test(to)) && !/^(server|agent)\/[^/]+\.ts$/.test(from);
    if (below === rule) return !reachesTop;
  }
  // Only the start-up puts the API together.
  if (to.startsWith('server/api/') && !from.startsWith('server/api/') && from !== 'server/server.ts') return false;
  // The command line starts programs, begins early what takes long of them, and reads their option tables; it does not
  // reach inside.
  if (from.startsWith('cli/') && /^(server|agent)\//.test(to))
    return /^(server|agent)\/(config|server|agent|main|store\/thread)\.ts$/.test(to);
  return (arrows[rule] ?? []).some((prefix) => (prefix.endsWith('/') ? to.startsWith(prefix) : to === prefix));
}
