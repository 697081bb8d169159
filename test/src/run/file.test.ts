import assert from 'node:assert/strict';
import { link, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readFileIfThere, writeFileAtomic } from '../../../src/run/file.ts';

const inFolder = (what: string, body: (folder: string) => Promise<void>): void => {
  test(what, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'mutual-'));
    try {
      await body(folder);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
};

inFolder('a file is written whole, with exactly its mode, and nothing stays beside it', async (folder) => {
  const path = join(folder, 'file');
  const before = process.umask(0o077);
  try {
    await writeFileAtomic(path, 'one', 0o644);
    await writeFileAtomic(path, Buffer.from('two'), 0o600);
  } finally {
    process.umask(before);
  }
  assert.equal(await readFile(path, 'utf8'), 'two');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(folder), ['file']);
});

inFolder('another name of the old file keeps the old content: it is replaced, not written over', async (folder) => {
  const [path, other] = [join(folder, 'file'), join(folder, 'other')];
  await writeFile(path, 'old');
  await link(path, other);
  await writeFileAtomic(path, 'new', 0o600);
  assert.equal(await readFile(other, 'utf8'), 'old');
  assert.equal(await readFile(path, 'utf8'), 'new');
});

inFolder("a link in the file's place is replaced, not followed", async (folder) => {
  const [path, target] = [join(folder, 'file'), join(folder, 'target')];
  await writeFile(target, 'untouched');
  await symlink(target, path);
  await writeFileAtomic(path, 'new', 0o600);
  assert.equal(await readFile(target, 'utf8'), 'untouched');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

inFolder('a failure leaves the old content and nothing beside it', async (folder) => {
  await writeFile(join(folder, 'in-the-way'), '');
  await assert.rejects(writeFileAtomic(join(folder, 'in-the-way', 'file'), 'x', 0o600), { code: 'ENOTDIR' });
  await assert.rejects(writeFileAtomic(folder, 'x', 0o600));
  assert.deepEqual(await readdir(folder), ['in-the-way']);
});

inFolder('a file that is not there reads as undefined; one that is comes with its mode', async (folder) => {
  const path = join(folder, 'file');
  assert.equal(await readFileIfThere(path), undefined);
  await writeFileAtomic(path, 'text', 0o640);
  assert.deepEqual(await readFileIfThere(path), { data: Buffer.from('text'), mode: 0o640 });
  await assert.rejects(readFileIfThere(folder), { code: 'EISDIR' });
});
