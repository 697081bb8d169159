import assert from 'node:assert/strict';
import { test } from 'node:test';
import { laws } from '../../tools/laws/all.ts';
import { ambient } from '../../tools/laws/ambient.ts';
import { cycles, imports } from '../../tools/laws/imports.ts';
import { names } from '../../tools/laws/names.ts';
import { type Law, printOffence, readSources, sourceOf } from '../../tools/laws/source.ts';
import { tests } from '../../tools/laws/tests.ts';

const sources = readSources();

for (const law of laws) {
  test(`the tree keeps the law "${law.name}"`, () => {
    assert.deepEqual(law.check(sources).map(printOffence), []);
  });
}

/** What a law says of one file. */
function saysOf(law: Law, path: string, text: string): string[] {
  return law.check([sourceOf(path, text)]).map(printOffence);
}

const breaches: [string, Law, string, string, RegExp][] = [
  [
    'src imports server',
    imports,
    'src/spiffe/x.ts',
    "import { a } from '../../server/config.ts';",
    /^src\/spiffe\/x\.ts:1: imports server\/config\.ts/,
  ],
  [
    'a type counts',
    imports,
    'src/run/x.ts',
    "\nimport type { A } from '../log.ts';",
    /^src\/run\/x\.ts:2: imports src\/log\.ts/,
  ],
  [
    'an import over lines',
    imports,
    'agent/x.ts',
    "import {\n  a,\n} from '../server/config.ts';",
    /^agent\/x\.ts:3: imports server\/config\.ts/,
  ],
  [
    'a lazy import',
    imports,
    'agent/x.ts',
    "const a = await import('../cli/run.ts');",
    /imports cli\/run\.ts, which agent\/ may not/,
  ],
  ['a re-export', imports, 'server/x.ts', "export { a } from '../agent/config.ts';", /imports agent\/config\.ts/],
  [
    'jose elsewhere',
    imports,
    'src/spiffe/x.ts',
    "import { jwtVerify } from 'jose';",
    /imports jose, which only src\/crypto\/ may/,
  ],
  [
    'grpc elsewhere',
    imports,
    'server/api/x.ts',
    "import type { A } from '@grpc/grpc-js';",
    /imports @grpc\/grpc-js, which only src\/rpc\/ may/,
  ],
  ['pino elsewhere', imports, 'server/x.ts', "import pino from 'pino';", /imports pino, which only src\/log\.ts may/],
  [
    'a package that is not declared',
    imports,
    'cli/x.ts',
    "import x from 'left-pad';",
    /imports left-pad, which package\.json does not declare/,
  ],
  [
    'a development package in a program',
    imports,
    'cli/x.ts',
    "import x from 'esbuild';",
    /imports esbuild, which package\.json does not declare/,
  ],
  ['node without its prefix', imports, 'cli/x.ts', "import fs from 'fs';", /imports "fs" without "node:"/],
  [
    'the API from beside',
    imports,
    'server/attest/x.ts',
    "import { a } from '../api/agent.ts';",
    /imports server\/api\/agent\.ts/,
  ],
  [
    'the start-up from inside',
    imports,
    'server/api/x.ts',
    "import { a } from '../server.ts';",
    /imports server\/server\.ts/,
  ],
  [
    'the command line inside a program',
    imports,
    'cli/x.ts',
    "import { a } from '../server/store/open.ts';",
    /imports server\/store\/open\.ts, which cli\/ may not/,
  ],
  [
    'Date.now',
    ambient,
    'src/spiffe/x.ts',
    'const now = Date.now();',
    /^src\/spiffe\/x\.ts:1: uses Date\.now: take a Clock/,
  ],
  ['a new Date without a time', ambient, 'agent/x.ts', 'const now = new Date();', /uses new Date\(\)/],
  ['a timer', ambient, 'agent/x.ts', '\n\nsetTimeout(() => {}, 5);', /^agent\/x\.ts:3: uses a timer/],
  ['Math.random', ambient, 'cli/x.ts', 'const a = `${Math.random()}`;', /uses Math\.random/],
  ['random bytes', ambient, 'server/x.ts', 'const a = randomBytes(5);', /uses randomness/],
  ['process', ambient, 'cli/x.ts', 'process.exit(1);', /uses process/],
  ['a module that is the process', ambient, 'cli/x.ts', "import { env } from 'node:process';", /imports node:process/],
  ['util', names, 'src/string-util.ts', '', /"util" says nothing/],
  ['a folder of helpers', names, 'src/helpers/x.ts', '', /"helpers" says nothing/],
  ['camelCase', names, 'src/thatThing.ts', '', /"thatThing" is not kebab-case/],
  ['a barrel', names, 'src/rpc/index.ts', '', /"index" says nothing/],
  ['a skipped test', tests, 'test/x.test.ts', "test.skip('x', () => {});", /test\.skip: a test runs or is not there/],
  [
    'a skip as an option',
    tests,
    'test/x.test.ts',
    "test('x', { skip: true }, () => {});",
    /a test runs or is not there/,
  ],
  ['an only', tests, 'test/x.test.ts', "test('x', { only: true }, () => {});", /a test runs or is not there/],
  [
    'a source that imports a test',
    tests,
    'src/x.ts',
    "import { a } from '../test/support/clock.ts';",
    /no source uses test code/,
  ],
];
for (const [what, law, path, text, says] of breaches) {
  test(`the law "${law.name}" sees ${what}`, () => {
    const found = saysOf(law, path, text);
    assert.equal(found.length, 1, found.join('\n'));
    assert.match(found[0]!, says);
  });
}

const allowed: [string, Law, string, string][] = [
  ['a comment about Date.now()', ambient, 'src/x.ts', '// not Date.now()\n/* nor process.exit() */\nconst a = 1;'],
  ['a text about it', ambient, 'src/x.ts', "const a = 'Date.now()';\nconst b = `process.exit ${a} setTimeout(`;"],
  ['an expression about it', ambient, 'src/x.ts', "const a = /process.exit('/.test(b); // Date.now()"],
  ['a date of a time', ambient, 'src/x.ts', 'const a = new Date(now);'],
  ['the clock itself', ambient, 'src/run/clock.ts', 'export const now = () => Date.now();'],
  ['a main file', ambient, 'cli/main.ts', 'process.exitCode = 1;'],
  ['a test', ambient, 'test/x.test.ts', 'process.exit(Date.now());'],
  [
    'what a folder may import',
    imports,
    'server/issue/x.ts',
    "import { a } from '../authority/x509.ts';\nimport { b } from '../../src/spiffe/id.ts';",
  ],
  [
    'the start-up, which may import all of its program',
    imports,
    'server/server.ts',
    "import { a } from './api/agent.ts';",
  ],
  ['the command line, which starts programs', imports, 'cli/x.ts', "const a = await import('../server/server.ts');"],
  ['an import in a comment', imports, 'src/run/x.ts', "// import { a } from '../../server/config.ts';\nconst a = 1;"],
];
for (const [what, law, path, text] of allowed) {
  test(`the law "${law.name}" lets pass ${what}`, () => assert.deepEqual(saysOf(law, path, text), []));
}

test('the law "cycles" sees a ring of three, and none where only types or later imports close it', () => {
  const ring = (last: string): string[] =>
    cycles
      .check([
        sourceOf('src/run/a.ts', "import { b } from './b.ts';"),
        sourceOf('src/run/b.ts', "import { c } from './c.ts';"),
        sourceOf('src/run/c.ts', last),
      ])
      .map(({ says }) => says);
  assert.match(
    ring("import { a } from './a.ts';").join(),
    /src\/run\/a\.ts -> src\/run\/b\.ts -> src\/run\/c\.ts -> src\/run\/a\.ts/,
  );
  assert.deepEqual(ring("import type { a } from './a.ts';"), []);
  assert.deepEqual(ring("const a = await import('./a.ts');"), []);
});
