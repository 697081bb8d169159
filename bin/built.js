/**
 * Runs a built program with the code that V8 compiled for it at an earlier start. Node's own cache holds what is compiled
 * before a file runs, which of a bundle is next to nothing: of this one, every function that a start has called.
 */
const { hash } = require('node:crypto');
const {
  closeSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} = require('node:fs');
const { createRequire } = require('node:module');
const { basename, dirname, join } = require('node:path');
const { constants, Script } = require('node:vm');

/** Before the code: the hash of it and of the program's text. V8 compares the text's length alone, and looks at nothing else. */
const hashBytes = 32;

/**
 * @param {string} path of the bundle: a function that takes what a module has, all ASCII
 * @param {string} directory of the cache; nobody else may write there
 */
exports.runBuilt = (path, directory) => {
  const bytes = readFileSync(path);
  const file = join(directory, `${basename(path, '.cjs')}-${process.version}-${process.arch}.code`);
  const cachedData = storedCode(file, bytes);
  const script = new Script(bytes.latin1Slice(), {
    filename: path,
    cachedData,
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  if (cachedData === undefined || script.cachedDataRejected) {
    // The program calls it when it has started (src/run/compiled.ts).
    globalThis[Symbol.for('mutual.keepCompiled')] = () => storeCode(file, bytes, script.createCachedData());
  }
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(path), module, path, dirname(path));
};

/** What was stored for this text: whole, by root or this user, and for nobody else to write. */
function storedCode(file, text) {
  let fd;
  try {
    fd = openSync(file, 'r');
    const { uid, mode } = fstatSync(fd);
    if ((mode & 0o022) !== 0 || (uid !== process.getuid() && uid !== 0)) return undefined;
    const stored = readFileSync(fd);
    const code = stored.subarray(hashBytes);
    return hashOf(text, code).equals(stored.subarray(0, hashBytes)) ? code : undefined;
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Whole or not at all. Where it cannot be written, the next start compiles anew. */
function storeCode(file, text, code) {
  const made = `${file}.${process.pid}`;
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    // Of root it serves whoever runs the program: there is nothing in it that is not in the text.
    const fd = openSync(made, 'wx', 0o644);
    for (const part of [hashOf(text, code), code]) writeSync(fd, part);
    fsyncSync(fd);
    closeSync(fd);
    renameSync(made, file);
  } catch {
    try {
      rmSync(made, { force: true });
    } catch {}
  }
}

function hashOf(text, code) {
  const each = Buffer.concat([text, code].map((bytes) => hash('sha256', bytes, 'buffer')));
  return hash('sha256', each, 'buffer');
}
