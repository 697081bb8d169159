/** A machine whose clock is set while server and agent run on it: both notice, and nothing has to be started again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPair } from '../support/pair.ts';

const minute = 60_000;

test('set forward past the life of every SVID: a valid one is served moments later', async (t) => {
  const pair = await startPair(t, { server: { agentTtl: '24h' } });
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  const [first] = await stream.next();
  pair.clock.set(first!.leaf.notAfter + 90 * minute);
  const began = pair.clock.now();
  const [second] = await pair.pass(stream.next());
  assert.ok(second!.leaf.notAfter > pair.clock.now());
  assert.ok(pair.clock.now() - began <= minute, `${(pair.clock.now() - began) / 1000} s`);
  assert.ok(pair.lines.some((line) => /WARN.*the clock was set.*seconds=\d{4}/.test(line)));
  await stream.close();
});

test('set back before the SVIDs that are held: they are replaced by such that are valid now, over connections made anew', async (t) => {
  const pair = await startPair(t);
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  await stream.next();
  // The authority is older than what is issued below it, as it is but for the first minutes of a trust domain.
  const [held] = await pair.pass(stream.next(), minute);
  pair.clock.set(held!.leaf.notBefore - 10 * minute);
  const [second] = await pair.pass(stream.next());
  assert.ok(second!.leaf.notBefore <= pair.clock.now(), new Date(second!.leaf.notBefore).toISOString());
  // An agent that starts now believes the server, and is believed.
  await stream.close();
  await pair.stopAgent();
  await pair.startAgent();
  const again = pair.watchX509();
  assert.equal((await again.next()).length, 1);
  await again.close();
});

test('set back before the authority itself: the server is not ready, and says which time is wrong', async (t) => {
  const pair = await startPair(t, { server: { healthListen: '127.0.0.1:0' } });
  const ready = async () => {
    const { host, port } = pair.server.health!;
    return (await (await fetch(`http://${host}:${port}/ready`)).json()) as never as {
      status: string;
      checks: Record<string, string>;
    };
  };
  assert.equal((await ready()).status, 'ok');
  const now = pair.clock.now();
  pair.clock.set(now - 60 * minute);
  const { status, checks } = await ready();
  assert.equal(status, 'failing');
  assert.match(checks.clock!, /^the X\.509 authority is not valid before \S+; the time here is \S+$/);
  pair.clock.set(now);
  assert.equal((await ready()).status, 'ok');
});
