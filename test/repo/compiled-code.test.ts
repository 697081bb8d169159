/** bin/built.js: the code that V8 compiled for a built program, kept for its next start and never taken for another text. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { root } from '../../tools/run.ts';

interface Installation {
  /** Of the code. */
  readonly file: string;
  readonly program: string;
  /** Writes the program, always with the same length and the same time. */
  write(letter: string): void;
  /** Starts it, and gives the letter it was written with and where its code came from. */
  start(): string;
}

function installation(t: TestContext): Installation {
  const place = mkdtempSync(join(tmpdir(), 'mutual-compiled-'));
  t.after(() => rmSync(place, { recursive: true, force: true }));
  cpSync(join(root, 'bin'), join(place, 'bin'), { recursive: true });
  mkdirSync(join(place, 'dist'));
  writeFileSync(join(place, 'dist', 'begin-thread.cjs'), '');
  const program = join(place, 'dist', 'mutual-server.cjs');
  const write = (letter: string): void => {
    writeFileSync(
      program,
      `(function (exports, require, module, __filename) { const keep = globalThis[Symbol.for('mutual.keepCompiled')];
       function letter() { return '${letter}'; }
       console.log(letter(), keep ? 'compiled' : 'stored', process.argv.slice(2).join(' '), require.resolve('./mutual-server.cjs') === __filename);
       if (keep) keep(); })`,
    );
    utimesSync(program, 1_000_000_000, 1_000_000_000);
  };
  write('A');
  return {
    file: join(place, '.cache', 'mutual', `mutual-server-${process.version}-${process.arch}.code`),
    program,
    write,
    start() {
      const { stdout, stderr, status } = spawnSync(
        process.execPath,
        [join(place, 'bin', 'mutual.js'), 'server', 'run', 'x'],
        { encoding: 'utf8', env: { PATH: process.env.PATH }, cwd: tmpdir() },
      );
      assert.equal(status, 0, stderr);
      const [, what] = /^(\w \w+) server run x true\n$/.exec(stdout) ?? [];
      return what ?? stdout + stderr;
    },
  };
}

test('a start takes the code that the one before has stored, for its user alone to write', (t) => {
  const { start, file } = installation(t);
  assert.equal(start(), 'A compiled');
  assert.equal(statSync(file).mode & 0o777, 0o644);
  assert.equal(start(), 'A stored');
});

test('the code of another text is not taken, though length and time are the same', (t) => {
  const { start, write } = installation(t);
  assert.equal(start(), 'A compiled');
  write('B');
  assert.equal(start(), 'B compiled');
  assert.equal(start(), 'B stored');
});

test('code that is damaged or cut off is not taken, and is written anew', (t) => {
  const { start, file } = installation(t);
  start();
  const whole = readFileSync(file);
  for (const at of [0, 40, whole.length - 9]) {
    const damaged = Buffer.from(whole);
    damaged[at]! ^= 1;
    writeFileSync(file, damaged);
    assert.equal(start(), 'A compiled', String(at));
    assert.equal(start(), 'A stored', String(at));
  }
  for (const length of [0, 10, 32, whole.length - 1]) {
    writeFileSync(file, whole.subarray(0, length));
    assert.equal(start(), 'A compiled', String(length));
  }
});

test('code that others may write is not taken', (t) => {
  const { start, file } = installation(t);
  start();
  for (const mode of [0o620, 0o602]) {
    chmodSync(file, mode);
    assert.equal(start(), 'A compiled', mode.toString(8));
    assert.equal(statSync(file).mode & 0o777, 0o644);
  }
});

test('a program that can store nothing runs all the same', (t) => {
  const { start, file } = installation(t);
  writeFileSync(join(file, '..', '..', '..', '.cache'), '');
  assert.equal(start(), 'A compiled');
  assert.equal(start(), 'A compiled');
});

test('what a program loads later is found beside it, wherever it was started and whether its code was stored or not', (t) => {
  const { start, file, program } = installation(t);
  const beside = join(program, '..', 'node_modules', 'later');
  mkdirSync(beside, { recursive: true });
  writeFileSync(join(beside, 'package.json'), '{"type":"module","exports":"./it.js"}');
  writeFileSync(join(beside, 'it.js'), "export const from = 'A';");
  writeFileSync(
    program,
    `(function (exports, require, module, __filename) {
       const keep = globalThis[Symbol.for('mutual.keepCompiled')];
       const name = 'later';
       import(name).then(({ from }) => {
         console.log(from, keep ? 'compiled' : 'stored', process.argv.slice(2).join(' '), true);
         if (keep) keep();
       });
     })`,
  );
  assert.equal(start(), 'A compiled');
  assert.equal(start(), 'A stored');
  assert.ok(statSync(file).size > 0);
});
