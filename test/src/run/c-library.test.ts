import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cLibrary } from '../../../src/run/c-library.ts';

test('the C library answers, and says why it refuses', () => {
  const { library, errno } = cLibrary();
  const getpid = library.func('int getpid()');
  assert.equal(getpid(), process.pid);
  const close = library.func('int close(int fd)');
  assert.equal(close(-1), -1);
  // EBADF
  assert.equal(errno(), 9);
});
