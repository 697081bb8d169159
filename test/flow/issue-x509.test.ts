import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseId, pathOf } from '../../src/spiffe/id.ts';
import { startPair } from '../support/pair.ts';

const minute = 60_000;

test('WA-7 WA-8 an entry made while a workload waits is in its open stream, and leaves it when deleted', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/first');
  const stream = pair.watchX509();
  assert.deepEqual(
    (await stream.next()).map(({ spiffeId }) => spiffeId),
    ['spiffe://example.org/first'],
  );

  const second = await pair.admin.createEntry('/second');
  const both = await stream.next();
  assert.deepEqual(both.map(({ spiffeId }) => pathOf(parseId(spiffeId))).sort(), ['/first', '/second']);

  await pair.admin.call('spire.api.server.entry.v1.Entry', 'BatchDeleteEntry', { ids: [second] });
  assert.deepEqual(
    (await stream.next()).map(({ spiffeId }) => spiffeId),
    ['spiffe://example.org/first'],
  );
  await stream.close();
});

test('an SVID is renewed at half its life, before it ends, with a new key', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  const [first] = await stream.next();
  await pair.clock.advance(25 * minute);
  await pair.clock.advance(10 * minute);
  const [second] = await stream.next();
  assert.equal(second?.spiffeId, 'spiffe://example.org/web');
  assert.notEqual(second?.leaf.serial, first?.leaf.serial);
  assert.ok(!second?.leaf.spki.equals(first?.leaf.spki as Buffer));
  assert.ok((first?.leaf.notAfter as number) > pair.clock.now());
  await stream.close();
});
