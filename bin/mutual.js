#!/usr/bin/env node
/**
 * The way in. Plain JavaScript that any Node of the last years can read: on one that is too old it goes on with the Node
 * the checkout brings along, or says in one sentence what is needed. Then it loads the built program when that is not
 * older than its sources, and the sources otherwise.
 */
// A module to require and not one to import, and what is rarely needed required where it is: a start is 5 ms shorter.
const { existsSync, readdirSync, realpathSync, statSync } = require('node:fs');
const { dirname, join } = require('node:path');

const needed = 24;
const root = dirname(__dirname);
const sources = ['cli', 'server', 'agent', 'src', 'proto'];
/** Set for the Node that is started here, so that a wrong one cannot start itself again and again. */
const mark = 'MUTUAL_LAUNCHED';

if (Number(process.versions.node.split('.')[0]) >= needed) load();
else goOn();

function load() {
  if (process.env[mark] !== undefined) {
    delete process.env[mark];
    endWithLauncher();
  }
  // In the package's own directory: in the shared temporary one, others could leave code for us to run.
  const modules = join(root, 'node_modules');
  const cache = join(existsSync(modules) ? modules : root, '.cache', 'mutual');
  require('node:module').enableCompileCache?.(cache);
  const part = partOf(process.argv.slice(2, 4));
  const built = join(root, 'dist', part);
  const source = join(root, 'cli', 'main.ts');
  const program = existsSync(built) && isCurrent(built, source) ? built : source;
  if (!existsSync(program)) {
    say(`mutual is not complete: neither ${built} nor ${source} is there; run "npm run build", or install it anew.`);
    return;
  }
  // The bundle by require: to import it, Node would read it through once more for the names it exports.
  if (program === built && part === 'mutual.cjs') require(built);
  else if (program === built) {
    // The thread of the embedded database is what a start waits for longest: it comes up beside all else.
    if (part === 'mutual-server.cjs' && !doesWithout(process.argv)) require(join(root, 'dist', 'begin-thread.cjs'));
    require('./built.js').runBuilt(built, cache);
  } else {
    import(require('node:url').pathToFileURL(program).href).catch((error) => {
      console.error(error);
      process.exitCode = 1;
    });
  }
}

/** The file of a build that holds a command: the two programs that run for long have their own. */
function partOf([program, verb]) {
  return verb === 'run' && (program === 'server' || program === 'agent') ? `mutual-${program}.cjs` : 'mutual.cjs';
}

/** Whether it can be seen already that the server opens no embedded database; it says so itself later, too. */
function doesWithout(words) {
  return [...words, process.env.MUTUAL_DATABASE ?? ''].some((word) => /^(-h|--?help)$|postgres(ql)?:/.test(word));
}

/** Whether no source changed after the build. An installed package has no sources. */
function isCurrent(built, source) {
  if (!existsSync(source)) return true;
  const made = statSync(built).mtimeMs;
  const changedIn = (directory) =>
    readdirSync(directory, { withFileTypes: true }).some((entry) => {
      // Hundreds of files at each start of a checkout: to join() them takes longer than to look at them.
      const path = `${directory}/${entry.name}`;
      if (entry.isDirectory()) return changedIn(path);
      return /\.(ts|proto)$/.test(entry.name) && !entry.name.endsWith('.d.ts') && statSync(path).mtimeMs > made;
    });
  return !sources.map((name) => join(root, name)).some((path) => existsSync(path) && changedIn(path));
}

function goOn() {
  const pinned = ['node_modules/node/bin/node', 'node_modules/.bin/node']
    .map((name) => join(root, name))
    .find((path) => existsSync(path) && realpathSync(path) !== realpathSync(process.execPath));
  if (pinned === undefined || process.env[mark] !== undefined) return refuse();
  // The channel tells the child when this process is gone, even by SIGKILL: no program is left that nobody knows of.
  const child = require('node:child_process').spawn(pinned, [__filename, ...process.argv.slice(2)], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, [mark]: '1' },
  });
  child.on('error', refuse);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2']) {
    process.on(signal, () => {
      // A terminal sends these two to both processes by itself.
      const fromTerminal = process.stdin.isTTY && (signal === 'SIGINT' || signal === 'SIGQUIT');
      if (!fromTerminal) child.kill(signal);
    });
  }
  child.on('exit', (code, signal) => {
    process.exitCode = code === null ? 128 + require('node:os').constants.signals[signal] : code;
  });
}

function refuse() {
  say(
    `mutual needs Node ${needed} or newer and this is ${process.version}: install Node ${needed}, or run "npm install" in ${root}, which brings its own, and start it again.`,
  );
}

function endWithLauncher() {
  if (process.channel === undefined) return;
  process.on('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  // Listening does not keep the program alive.
  process.channel.unref();
}

function say(sentence) {
  console.error(sentence);
  process.exitCode = 2;
}
