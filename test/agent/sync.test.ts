import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fault } from '../../src/errors.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { testAuthority } from '../support/ca.ts';
import { agentRig, id } from './support/agent-rig.ts';

const minute = 60_000;
const unreachable = new Fault('peer/unavailable', 'cannot reach the server');
const other = parseTrustDomain('other.org');

test('a server that pushes is followed: a snapshot in chunks is applied whole, then deltas, each acknowledged', async () => {
  const rig = await agentRig();
  for (const name of ['a', 'b', 'c']) rig.server.put({ id: name });
  const seen: number[] = [];
  rig.cache.changes.onChange(() => seen.push(rig.cache.entries.size));
  await rig.start();
  assert.equal(seen[0], 3);
  assert.deepEqual(rig.server.starts, ['@0']);
  rig.server.put({ id: 'd' });
  rig.server.remove('a');
  await rig.clock.advance(0);
  assert.deepEqual([...rig.cache.entries.keys()].sort(), ['b', 'c', 'd']);
  assert.equal(rig.server.applied.at(-1), rig.cache.position.position);
  assert.equal(rig.server.count('SyncAuthorizedEntries'), 0);
  rig.stop();
});

test('a stream that ends is opened again from the position reached, with backoff, without a snapshot', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const at = rig.cache.position.position;
  for (const end of rig.server.endWatch) end(unreachable);
  await rig.clock.advance(0);
  assert.equal(rig.server.starts.length, 1);
  assert.equal(rig.sync.status().outage?.message, unreachable.message);
  rig.server.put({ id: 'b' });
  await rig.clock.advance(1_000);
  assert.deepEqual(rig.server.starts, ['@0', `log@${at}`]);
  assert.deepEqual([...rig.cache.entries.keys()], ['a', 'b']);
  assert.equal(rig.sync.status().outage, undefined);
  rig.stop();
});

test('a group that never completes changes nothing', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  const before = rig.cache.position;
  // Two chunks of a snapshot from another log, and the stream breaks.
  rig.server.put({ id: 'b' });
  await rig.clock.advance(0);
  assert.notDeepEqual(rig.cache.position, before);
  rig.stop();
});

test('a stream that fell silent while the server went on is found out by its position and opened again', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.silent = true;
  rig.server.put({ id: 'b' });
  await rig.clock.advance(80_000);
  assert.equal(rig.server.starts.length, 2);
  rig.server.silent = false;
  rig.server.put({ id: 'c' });
  await rig.clock.advance(0);
  assert.deepEqual([...rig.cache.entries.keys()], ['a', 'b', 'c']);
  rig.stop();
});

test('a server that answers nothing any more is looked for on another connection', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.instead.set('Position', () => {
    throw new Fault('call/late', 'the deadline passed');
  });
  await rig.clock.advance(50_000);
  assert.equal(rig.server.reconnects, 0);
  await rig.clock.advance(17_000);
  assert.ok(rig.server.reconnects > 0);
  const { reconnects } = rig.server;
  rig.server.instead.clear();
  await rig.clock.advance(30_000);
  assert.equal(rig.server.reconnects, reconnects);
  assert.equal(rig.sync.status().outage, undefined);
  rig.stop();
});

test('a server that has not come to the connection yet is waited for, on the same connection', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  let asked = 0;
  rig.server.instead.set('Position', (usual) => {
    asked += 1;
    rig.server.isWaiting = asked < 3;
    if (rig.server.isWaiting) throw new Fault('call/late', 'the deadline passed');
    return usual();
  });
  await rig.clock.advance(67_000);
  assert.equal(asked, 3);
  assert.equal(rig.server.reconnects, 0);
  assert.equal(rig.server.starts.length, 1);
  assert.equal(rig.sync.status().outage, undefined);
  rig.stop();
});

test('a renewed agent SVID moves the stream to the new connection at once', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.link.renewed(rig.record);
  await rig.clock.advance(0);
  assert.equal(rig.server.starts.length, 2);
  rig.stop();
});

test('a server without a change log is asked every five seconds: entries by pages and revisions, then bundles', async () => {
  const rig = await agentRig();
  rig.server.push = false;
  for (const name of ['a', 'b', 'c', 'd', 'e']) rig.server.put({ id: name });
  await rig.start();
  assert.equal(rig.sync.status().mode, 'poll');
  assert.equal(rig.cache.entries.size, 5);
  // No request holds more ids than the first page did, and they are sorted.
  assert.deepEqual(
    rig.server.calls.filter((call) => call.startsWith('ids:')),
    ['ids:a,b', 'ids:c,d', 'ids:e'],
  );

  rig.server.put({ id: 'c', hint: 'new' });
  rig.server.remove('e');
  rig.server.calls.length = 0;
  await rig.clock.advance(5_500);
  assert.deepEqual(
    rig.server.calls.filter((call) => call.startsWith('ids:')),
    ['ids:c'],
  );
  assert.equal(rig.cache.entries.get('c')?.hint, 'new');
  assert.equal(rig.cache.entries.has('e'), false);
  assert.equal(rig.server.count('GetBundle'), 1);
  rig.stop();
});

test('an entry deleted and made again with its id and revision is noticed by its creation time', async () => {
  const rig = await agentRig();
  rig.server.push = false;
  for (const name of ['a', 'b', 'c']) rig.server.put({ id: name });
  await rig.start();
  rig.server.entries.delete('b');
  rig.server.put({ id: 'b', spiffeId: id('/another'), createdAt: 9_999_999_999 });
  await rig.clock.advance(5_500);
  assert.equal(rig.cache.entries.get('b')?.spiffeId, id('/another'));
  rig.stop();
});

test('an empty first answer is the whole list: every entry goes', async () => {
  const rig = await agentRig();
  rig.server.push = false;
  rig.server.put({ id: 'a' });
  await rig.start();
  assert.equal(rig.cache.entries.size, 1);
  rig.server.remove('a');
  await rig.clock.advance(5_500);
  assert.equal(rig.cache.entries.size, 0);
  rig.stop();
});

test('a server that has only GetAuthorizedEntries is asked with that', async () => {
  const rig = await agentRig();
  rig.server.push = false;
  rig.server.delta = false;
  rig.server.put({ id: 'a' });
  await rig.start();
  assert.equal(rig.cache.entries.size, 1);
  assert.equal(rig.server.count('GetAuthorizedEntries'), 1);
  rig.stop();
});

test('federated bundles come for the entries that need them, a missing one is no failure, and they go with the last entry', async () => {
  for (const push of [true, false]) {
    const rig = await agentRig();
    rig.server.push = push;
    rig.server.put({ id: 'a', federatesWith: [other, parseTrustDomain('unknown.org')] });
    rig.server.putBundle(testAuthority({ trustDomain: other, now: rig.clock.now() }).bundle());
    await rig.start();
    assert.deepEqual([...rig.cache.bundles.keys()], ['example.org', other]);
    rig.server.put({ id: 'a', federatesWith: [] });
    if (push) {
      rig.server.bundles.delete(other);
      rig.server.put({ id: 'b' });
    }
    await rig.clock.advance(6_000);
    assert.deepEqual([...rig.cache.bundles.keys()], ['example.org']);
    rig.stop();
  }
});

test('a failing federated bundle fails the whole poll, which is tried again', async () => {
  const rig = await agentRig();
  rig.server.push = false;
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.instead.set('GetBundle', () => {
    throw unreachable;
  });
  rig.server.put({ id: 'b' });
  await rig.clock.advance(6_000);
  assert.equal(rig.cache.entries.has('b'), false);
  assert.equal(rig.sync.status().outage?.message, unreachable.message);
  rig.server.instead.clear();
  await rig.clock.advance(20_000);
  assert.equal(rig.cache.entries.has('b'), true);
  rig.stop();
});

test('polling backs off while the server is away, never beyond eight minutes, and never beyond five seconds without SVIDs', async () => {
  const rig = await agentRig();
  rig.server.push = false;
  rig.server.put({ id: 'a' });
  await rig.start();
  assert.equal(rig.cache.svids.size, 1);
  rig.server.outage = unreachable;
  rig.server.calls.length = 0;
  await rig.clock.advance(9 * minute);
  const tries = rig.server.count('SyncAuthorizedEntries') + rig.server.count('Watch');
  assert.ok(tries >= 5 && tries <= 25, `${tries} tries`);
  rig.cache.clear();
  rig.server.calls.length = 0;
  await rig.clock.advance(8 * minute);
  rig.server.calls.length = 0;
  await rig.clock.advance(minute);
  assert.ok(rig.server.count('SyncAuthorizedEntries') + rig.server.count('Watch') >= 2);
  rig.stop();
});

test('entries of another trust domain, or that cannot be read, are left out and the others kept', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'foreign', spiffeId: 'spiffe://other.org/a' as never });
  rig.server.put({ id: 'bad', spiffeId: 'spiffe://example.org/a//b' as never });
  rig.server.put({ id: 'rootless', spiffeId: 'spiffe://example.org' as never });
  await rig.start();
  assert.deepEqual([...rig.cache.entries.keys()], ['a']);
  rig.stop();
});

test('the own bundle stays when a snapshot lacks it', async () => {
  const rig = await agentRig();
  rig.server.bundles.clear();
  rig.server.put({ id: 'a' });
  await rig.start();
  assert.deepEqual([...rig.cache.bundles.keys()], ['example.org']);
  rig.stop();
});

test('catching up waits for the position that the server has, and no longer than it is told', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.silent = true;
  rig.server.put({ id: 'b' });
  let done = false;
  const waiting = rig.sync.catchUp(1_000).then(() => {
    done = true;
  });
  await rig.clock.advance(900);
  assert.equal(done, false);
  await rig.clock.advance(100);
  assert.equal(done, true);
  await waiting;
  rig.server.silent = false;
  rig.server.put({ id: 'c' });
  await rig.sync.catchUp(1_000);
  assert.ok(rig.cache.entries.has('c'));
  rig.stop();
});

test('many who catch up at once cost two questions, not one each', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.calls.length = 0;
  const all = Promise.all(Array.from({ length: 50 }, () => rig.sync.catchUp(1_000)));
  await rig.clock.advance(200);
  await all;
  assert.ok(rig.server.count('Ask') <= 2, `${rig.server.count('Ask')}`);
  rig.stop();
});

test('catching up with a server that is polled makes it be asked at once, but not more than twice a second', async () => {
  const rig = await agentRig();
  rig.server.push = false;
  rig.server.put({ id: 'a' });
  await rig.start();
  await rig.clock.advance(2_000);
  rig.server.put({ id: 'b' });
  rig.server.calls.length = 0;
  const waiting = rig.sync.catchUp(1_000);
  await rig.clock.advance(600);
  await waiting;
  assert.ok(rig.cache.entries.has('b'));
  for (let ask = 0; ask < 20; ask++) {
    const again = rig.sync.catchUp(1_000);
    await rig.clock.advance(50);
    void again;
  }
  assert.ok(rig.server.count('SyncAuthorizedEntries') <= 4, `${rig.server.count('SyncAuthorizedEntries')}`);
  rig.stop();
});

test('catching up does not wait for a server that is away', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  rig.server.outage = unreachable;
  let done = false;
  void rig.sync.catchUp(1_000).then(() => {
    done = true;
  });
  await rig.clock.advance(0);
  assert.equal(done, true);
  rig.stop();
});

test('a stream whose server says to come again at once is resumed at once, and is no outage', async () => {
  const rig = await agentRig();
  rig.server.put({ id: 'a' });
  await rig.start();
  await rig.clock.advance(1_000);
  const at = rig.cache.position.position;
  const moved = new Fault('peer/unavailable', 'this connection has served its time', { retryAfterMs: 0 });
  for (const end of rig.server.endWatch) end(moved);
  await rig.clock.advance(0);
  assert.deepEqual(rig.server.starts, ['@0', `log@${at}`]);
  assert.equal(rig.sync.status().outage, undefined);
  // A server that says so of every stream is not asked over and over.
  for (const end of rig.server.endWatch) end(moved);
  await rig.clock.advance(0);
  assert.equal(rig.server.starts.length, 2);
  await rig.clock.advance(1_000);
  assert.equal(rig.server.starts.length, 3);
  rig.stop();
});

test('a server that says when it can be asked again is left alone until then', async () => {
  const rig = await agentRig();
  await rig.start();
  const busy = new Fault('limit/exceeded', 'too much at once', { retryAfterMs: 20_000 });
  for (const end of rig.server.endWatch) end(busy);
  await rig.clock.advance(19_000);
  assert.equal(rig.server.starts.length, 1);
  await rig.clock.advance(12_000);
  assert.equal(rig.server.starts.length, 2);
  rig.stop();
});
