/** Which pages of a process are let go of, and that it goes on without them. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { cleanMappings, lettingGo } from '../../../src/run/resident.ts';

interface Shown {
  range?: string;
  permissions?: string;
  offset?: string;
  inode?: string;
  path?: string;
  rss?: string;
  anonymous?: string;
  swap?: string;
}

/** A mapping as the kernel prints it, of which everything may be let go of unless something is said of it. */
const shown = (of: Shown = {}): string =>
  [
    `${of.range ?? '00a00000-02400000'} ${of.permissions ?? 'r-xp'} ${of.offset ?? '00600000'} 08:01 ${of.inode ?? '4711'}                       ${of.path ?? '/usr/bin/node'}`,
    'Size:              26624 kB',
    'KernelPageSize:        4 kB',
    `Rss:               ${of.rss ?? '20480 kB'}`,
    'Pss:               10240 kB',
    'Private_Dirty:         0 kB',
    `Anonymous:      ${of.anonymous ?? '       0 kB'}`,
    'AnonHugePages:         0 kB',
    `Swap:           ${of.swap ?? '       0 kB'}`,
    'SwapPss:               0 kB',
    'VmFlags: rd ex mr mw me',
    '',
  ].join('\n');

const text = { address: 0xa00000n, bytes: 0x1a00000 };

test('mappings of files that nothing was written to are let go of, code and constants', () => {
  assert.deepEqual(cleanMappings(shown()), [text]);
  assert.deepEqual(cleanMappings(shown({ permissions: 'r--p', offset: '00000000', path: '/opt/a (b)/lib x.so.6' })), [
    text,
  ]);
  const high = shown({ range: '7f0123456000-7f0123458000', path: '/usr/lib/libc.so.6' });
  assert.deepEqual(cleanMappings(shown() + high + shown({ anonymous: '4 kB' })), [
    text,
    { address: 0x7f0123456000n, bytes: 0x2000 },
  ]);
});

const kept: readonly (readonly [string, Shown])[] = [
  ['writable data', { permissions: 'rw-p' }],
  ['writable code', { permissions: 'rwxp' }],
  ['nothing at all', { permissions: '---p' }],
  ['shared', { permissions: 'r--s' }],
  ['relocated and then protected', { permissions: 'r--p', anonymous: '1400 kB' }],
  ['one page changed', { anonymous: '4 kB' }],
  ['a changed page swapped out', { swap: '4 kB' }],
  ['nothing resident', { rss: '0 kB' }],
  ['no file', { path: '', inode: '0' }],
  ['the kernel, mapped', { path: '[vdso]', inode: '0' }],
  ['the kernel, with an inode', { path: '[vvar]' }],
  ['no inode', { inode: '0' }],
  ['a file that is gone', { path: '/usr/bin/node (deleted)' }],
  ['an addon', { path: '/opt/mutual/node_modules/koffi/koffi.node' }],
  ['memory with a name', { path: 'anon_inode:[io_uring]' }],
  ['another unit', { anonymous: '0 MB' }],
  ['no number', { anonymous: 'none' }],
  ['a negative number', { swap: '-0 kB' }],
  ['no range', { range: '00a00000' }],
  ['no hexadecimal range', { range: '00g00000-02400000' }],
];
for (const [what, of] of kept)
  test(`left alone: ${what}`, () => {
    assert.deepEqual(cleanMappings(shown(of)), []);
    assert.deepEqual(cleanMappings(shown(of) + shown() + shown(of)), [text], 'and the next one is not');
  });

test('left alone: a mapping of which a line is missing, and what is no list of mappings', () => {
  for (const line of ['Rss', 'Anonymous', 'Swap'])
    assert.deepEqual(cleanMappings(shown().replace(new RegExp(`^${line}:.*\n`, 'm'), '')), [], line);
  for (const odd of ['', '\n', 'Anonymous: 0 kB\n', shown().split('\n')[0]!, 'a-b\n'.repeat(3)])
    assert.deepEqual(cleanMappings(odd), [], odd);
});

test('of this very process something is let go of', () => {
  assert.ok(cleanMappings(readFileSync('/proc/self/smaps', 'latin1')).some(({ bytes }) => bytes > 1 << 20));
});

test('where the system has no part of it, the other part is done, and nothing fails', async () => {
  const did: string[] = [];
  const trim = async () => void did.push('trim');
  const madvise = ({ address }: { address: bigint }) => void did.push(address.toString(16));
  const missing = () => {
    throw new Error('not here');
  };
  await lettingGo(() => ({ smaps: missing, letGo: madvise, trim }))();
  await lettingGo(() => ({ smaps: () => shown(), letGo: madvise, trim }))();
  await lettingGo(missing)();
  assert.deepEqual(did, ['trim', 'a00000', 'trim']);
});

test('a process that let go of its pages has fewer and works as before', () => {
  const module = new URL('../../../src/run/resident.ts', import.meta.url).href;
  const source = `
    import { createHash, generateKeyPairSync, sign, verify } from 'node:crypto';
    import { readFileSync } from 'node:fs';
    import { connect, createServer } from 'node:http2';
    import { DatabaseSync } from 'node:sqlite';
    import { Worker } from 'node:worker_threads';
    const load = (name) => import(name);
    const { lettingGo } = await load('${module}');
    const letGo = lettingGo();
    const work = async () => {
      const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const text = Buffer.from('text');
      const database = new DatabaseSync(':memory:');
      const server = createServer().on('stream', (stream) => stream.respond() ?? stream.end('answer'));
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
      const session = connect('http://127.0.0.1:' + server.address().port);
      let answer = '';
      for await (const part of session.request()) answer += part;
      session.close();
      server.close();
      const thread = new Worker('import { parentPort } from "node:worker_threads"; parentPort.postMessage(6 * 7);', { eval: true });
      return [
        verify('sha256', text, publicKey, sign('sha256', text, privateKey)),
        createHash('sha256').update(text).digest('hex').slice(0, 8),
        database.prepare('select 1 + 1 as two').get().two,
        answer,
        await new Promise((resolve) => thread.once('message', resolve)),
      ];
    };
    const files = () => Number(/^RssFile:\\s+(\\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))[1]);
    const done = [await work()];
    const before = files();
    await letGo();
    const after = files();
    // Memory that has been freed is given back and taken again.
    for (let turn = 0; turn < 3; turn++) {
      done.push(await work());
      await letGo();
    }
    console.log(JSON.stringify({ before, after, done }));
  `;
  const printed = execFileSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
  const { before, after, done } = JSON.parse(printed);
  assert.ok(before > 40_000, printed);
  assert.ok(after < before / 2, printed);
  assert.deepEqual(done, Array(4).fill([true, '982d9e3e', 2, 'answer', 42]));
});
