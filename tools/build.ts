/**
 * npm run build [-- DIRECTORY]: the programs as a few JavaScript files in dist/, which start in half the time of the
 * sources. What is imported lazily stays a file of its own; the store's worker is one too, since a thread is started from a
 * file. Packages with native parts stay outside, and so do those that find their own files at run time.
 */
import { cpSync, existsSync, globSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { build } from 'esbuild';
import { root } from './run.ts';

const start = performance.now();
/** Only below the checkout: what is not bundled is looked for in its node_modules. */
const final = join(root, process.argv[2] ?? 'dist');
const made = `${final}.new`;

/**
 * koffi and pg-native are machine code. protobufjs and proto-loader are asked for with `require`, and reflection reads
 * descriptors beside itself. pino starts threads from its own files when it has transports; here it has none.
 */
const external = [
  'koffi',
  'pg-native',
  'pg-cloudflare',
  'protobufjs',
  '@grpc/proto-loader',
  '@grpc/reflection',
  'grpc-health-check',
];

/** Bundled CommonJS packages call `require` for the modules of Node. */
const banner =
  "import { createRequire as mutualCreateRequire } from 'node:module';\nvar require = mutualCreateRequire(import.meta.url);";

rmSync(made, { recursive: true, force: true });
mkdirSync(made, { recursive: true });
const workers = globSync('{src,server,agent,cli}/**/*-worker.ts', { cwd: root });
await build({
  absWorkingDir: root,
  // Flat, each under its plain name: code that looks for its neighbours by import.meta.url finds them in both layouts.
  entryPoints: [
    { in: 'cli/main.ts', out: 'mutual' },
    ...workers.map((path) => ({ in: path, out: path.replace(/^.*\//, '').replace(/\.ts$/, '') })),
  ],
  outdir: made,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  chunkNames: 'part-[hash]',
  minify: true,
  keepNames: true,
  sourcemap: 'linked',
  sourcesContent: false,
  legalComments: 'linked',
  external,
  banner: { js: banner },
  logLevel: 'warning',
});

cpSync(join(root, 'proto'), join(made, 'proto'), {
  recursive: true,
  filter: (path) => !path.startsWith(join(root, 'proto', 'gen')),
});
const { printDescriptor } = await import('../src/rpc/load.ts');
writeFileSync(join(made, 'proto', 'descriptor.json'), printDescriptor());

// Whole or not at all: a program started meanwhile finds the old build or the new one.
const old = `${final}.old`;
rmSync(old, { recursive: true, force: true });
if (existsSync(final)) renameSync(final, old);
renameSync(made, final);
rmSync(old, { recursive: true, force: true });

const files = globSync('*.js', { cwd: final });
const bytes = files.reduce((sum, file) => sum + statSync(join(final, file)).size, 0);
const main = statSync(join(final, 'mutual.js')).size;
console.log(
  `build: ${relative(process.cwd(), final) || 'dist'}/, ${files.length} files, ${(bytes / 1e6).toFixed(1)} MB ` +
    `(mutual.js ${Math.round(main / 1000)} kB) in ${((performance.now() - start) / 1000).toFixed(1)} s`,
);
