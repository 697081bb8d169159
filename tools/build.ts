/**
 * npm run build [-- DIRECTORY]: the program as JavaScript in dist/, which starts in a third of the time of the sources: one
 * file for all commands, one for each program that runs for long, and one for each thread. What is imported lazily is in
 * them and is evaluated when it is called for; what few starts need lies beside them. Packages with native parts stay
 * outside, and so do those that find their own files at run time.
 */
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { type BuildOptions, build, type Plugin, transform } from 'esbuild';
import { everyContract, printDescriptor } from '../src/rpc/load.ts';
import { writeContracts } from '../src/rpc/write-contracts.ts';
import { root } from './run.ts';

const start = performance.now();
/** Only below the checkout: what is not bundled is looked for in its node_modules. */
const final = join(root, process.argv[2] ?? 'dist');
const made = `${final}.new`;

/** koffi and pg-native are machine code, and reflection, which few ask for, reads descriptors beside itself. */
const external = ['koffi', 'pg-native', 'pg-cloudflare', '@grpc/proto-loader', '@grpc/reflection', 'grpc-health-check'];

const require = createRequire(import.meta.url);
/** What asks for a module, in the text of another. */
const asking = (name: string): string => `require(${JSON.stringify(name)})`;

/** In place of src/rpc/protobuf.ts: without the parser, and in the bundle. Numbers of 64 bits want `long`. */
const smallerProtobuf: Plugin = {
  name: 'protobuf',
  setup(build) {
    build.onLoad({ filter: /src\/rpc\/protobuf\.ts$/ }, () => ({
      contents: `let library;
        export const protobuf = () => {
          if (library === undefined) {
            library = ${asking('protobufjs/light')};
            library.util.Long = ${asking('long')};
            library.configure();
          }
          return library;
        };`,
      resolveDir: dirname(require.resolve('@grpc/proto-loader')),
    }));
  },
};

const { services, packages } = writeContracts(everyContract());
/** The file of a package of contracts; the Workload API's has no name. */
const contractFile = (name: string): string => `./contracts/${name === '' ? 'workload' : name}.cjs`;

/**
 * In place of src/rpc/written-contracts.ts' nothing: the contracts as code, with the least of the library that it needs.
 * @param within packages that the first answers of a start need: in the file itself, of which V8 keeps what it has compiled
 */
const contracts = (...within: string[]): Plugin => ({
  name: 'contracts',
  setup(build) {
    build.onLoad({ filter: /src\/rpc\/written-contracts\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replace(
        / = undefined as [^;]*;/,
        () => ` = { services: ${services}, package: ((kept) => (name) => {
          ${within.map((name) => `if (name === ${JSON.stringify(name)}) return kept[name] ??= ${packages.get(name)};`).join('\n')}
          const file = ${JSON.stringify(Object.fromEntries([...packages.keys()].map((name) => [name, contractFile(name)])))}[name];
          if (file === undefined) throw new Error('no contract has a package called ' + JSON.stringify(name));
          return require(file);
        })({}), library() {
          const library = ${asking('protobufjs/minimal')};
          if (!library.util.Long) { library.util.Long = ${asking('long')}; library.configure(); }
          return library;
        } };`,
      ),
      loader: 'ts',
      resolveDir: dirname(require.resolve('@grpc/proto-loader')),
    }));
  },
});

/** Modules of Node that libraries ask for at once and rarely use: each is loaded when something of it is. */
const lazyModules = (names: string): Plugin => ({
  name: 'lazy modules',
  setup(build) {
    build.onResolve({ filter: new RegExp(`^(node:)?(${names})$`) }, ({ path, namespace }) =>
      namespace === 'lazy' ? { path, external: true } : { path: path.replace('node:', ''), namespace: 'lazy' },
    );
    build.onLoad({ filter: /.*/, namespace: 'lazy' }, ({ path }) => ({
      contents: `let loaded;
        for (const name of ${JSON.stringify(Object.keys(require(path)))})
          Object.defineProperty(exports, name, { enumerable: true, get: () => (loaded ??= ${asking(path)})[name] });`,
    }));
  },
});

/** Packages that few starts need: a file each, read when it is asked for. What a program's own file holds is read at each start. */
const apart = ['@grpc/grpc-js', 'dbus-native', 'kysely', 'pg', 'prom-client', 'protobufjs/light', 'yaml'];
const nameApart = (name: string): string => name.replace('@', '').replace('/', '-');
const packagesApart: Plugin = {
  name: 'packages apart',
  setup(build) {
    build.onResolve({ filter: new RegExp(`^(${apart.join('|')})$`) }, ({ path }) => ({
      path: `./packages/${nameApart(path)}.cjs`,
      external: true,
    }));
  },
};
/** Such a file, from the package's name. */
const onePackage: Plugin = {
  name: 'one package',
  setup(build) {
    build.onResolve({ filter: /^apart:/ }, ({ path }) => ({ path: path.slice('apart:'.length), namespace: 'apart' }));
    build.onLoad({ filter: /.*/, namespace: 'apart' }, ({ path }) => ({
      contents: `module.exports = ${asking(path)};`,
      resolveDir: path.startsWith('protobufjs') ? dirname(require.resolve('@grpc/proto-loader')) : root,
    }));
  },
};

/** Of the commands, `path` alone: what is loaded for the others is left out. */
const onlyCommand = (path: string): Plugin => ({
  name: 'one command',
  setup(build) {
    build.onResolve({ filter: /^\.\// }, ({ path: asked, importer, kind }) =>
      kind === 'dynamic-import' && /cli\/(commands|main)\.ts$/.test(importer) && asked !== path
        ? { path: asked, namespace: 'left out' }
        : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: 'left out' }, ({ path }) => ({
      contents: `throw new Error(${JSON.stringify(`${path} is not in this part of the build`)});`,
    }));
  },
});

rmSync(made, { recursive: true, force: true });
mkdirSync(made, { recursive: true });
const workers = globSync('{src,server,agent,cli}/**/*-worker.ts', { cwd: root });
/** Flat, each under its plain name: code that looks for its neighbours by import.meta.url finds them in both layouts. */
const settings: BuildOptions = {
  absWorkingDir: root,
  outdir: made,
  outExtension: { '.js': '.cjs' },
  bundle: true,
  // Modules for import would make Node fill in a namespace for each of its own modules that is used, undici's by the way.
  format: 'cjs',
  platform: 'node',
  target: 'node24',
  // Names stay as they are: to shorten them and keep them all the same costs a call for each closure that is made.
  minifySyntax: true,
  minifyWhitespace: true,
  sourcemap: 'linked',
  sourcesContent: false,
  legalComments: 'linked',
  external,
  define: { 'import.meta.url': 'mutualUrl' },
  banner: { js: "const mutualUrl=require('node:url').pathToFileURL(__filename).href;" },
  logLevel: 'warning',
};
const rare = 'zlib|child_process|https?|perf_hooks|v8|vm';
const plugins = [smallerProtobuf, lazyModules(rare), packagesApart];
await Promise.all([
  build({
    ...settings,
    plugins: [...plugins, contracts()],
    entryPoints: [
      { in: 'cli/main.ts', out: 'mutual' },
      { in: 'server/store/begin-thread.ts', out: 'begin-thread' },
    ],
  }),
  build({
    ...settings,
    // The store's needs cryptography for the first token or entry that is written.
    plugins: [smallerProtobuf, contracts(), lazyModules(`${rare}|crypto`)],
    entryPoints: workers.map((path) => ({ in: path, out: path.replace(/^.*\//, '').replace(/\.ts$/, '') })),
  }),
  build({
    ...settings,
    outdir: join(made, 'packages'),
    plugins: [onePackage, lazyModules(rare)],
    entryPoints: apart.map((name) => ({ in: `apart:${name}`, out: nameApart(name) })),
  }),
  // The two that run for long have files of their own, with no more in them than they need: less to read at each start.
  ...Object.entries({ server: ['spire.api.types', 'spire.api.server.bundle.v1'], agent: [''] }).map(
    ([program, first]) =>
      build({
        ...settings,
        plugins: [...plugins, contracts(...first), onlyCommand(`./${program}-run.ts`)],
        entryPoints: [{ in: 'cli/main.ts', out: `mutual-${program}` }],
        // A function to call, as bin/built.js does: made one there, the text would be copied once more.
        banner: { js: `(function(exports,require,module,__filename,__dirname){${settings.banner?.js}` },
        footer: { js: '})' },
      }),
  ),
]);

mkdirSync(join(made, 'contracts'));
for (const [name, text] of packages) {
  const { code } = await transform(`module.exports=${text}`, { minifySyntax: true, minifyWhitespace: true });
  writeFileSync(join(made, contractFile(name)), code);
}

cpSync(join(root, 'proto'), join(made, 'proto'), {
  recursive: true,
  filter: (path) => !path.startsWith(join(root, 'proto', 'gen')),
});
writeFileSync(join(made, 'proto', 'descriptor.json'), printDescriptor());

// bin/built.js reads them so.
for (const file of globSync('*.cjs', { cwd: made }))
  if (readFileSync(join(made, file)).some((byte) => byte > 127)) throw new Error(`${file} is not all ASCII`);

// Whole or not at all: a program started meanwhile finds the old build or the new one.
const old = `${final}.old`;
rmSync(old, { recursive: true, force: true });
if (existsSync(final)) renameSync(final, old);
renameSync(made, final);
rmSync(old, { recursive: true, force: true });

const files = globSync('{*,packages/*}.cjs', { cwd: final });
const bytes = files.reduce((sum, file) => sum + statSync(join(final, file)).size, 0);
const main = statSync(join(final, 'mutual.cjs')).size;
console.log(
  `build: ${relative(process.cwd(), final) || 'dist'}/, ${files.length} files, ${(bytes / 1e6).toFixed(1)} MB ` +
    `(mutual.cjs ${Math.round(main / 1000)} kB) in ${((performance.now() - start) / 1000).toFixed(1)} s`,
);
