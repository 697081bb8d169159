/** The identities that a Workload API gives, followed over what happens to an agent; the agent is a fake on a real socket. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Fault } from '../../../src/errors.ts';
import { type Call, serveUnix } from '../../../src/rpc/serve.ts';
import { x509Source } from '../../../src/rpc/x509-source.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock, settle } from '../../support/clock.ts';
import { fault } from '../../support/fault.ts';
import { id } from '../../support/server.ts';

const minute = 60_000;
type Send = (message: object) => Promise<void>;

async function rig(t: TestContext) {
  const clock = drivenClock();
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const socket = join(dir, 'api.sock');
  const ca = testAuthority({ now: clock.now() });
  /** As an agent sends it. */
  const svid = (path: string, life = 10 * minute) => {
    const issued = ca.issue({ id: id(path), notBefore: clock.now() - 1000, notAfter: clock.now() + life });
    const x509_svid = Buffer.concat(issued.chain);
    return { spiffe_id: issued.id, x509_svid, x509_svid_key: issued.key!.exportPkcs8(), bundle: ca.der };
  };
  let answer: (call: Call, send: Send) => unknown = () => {};
  let calls = 0;
  const open = () =>
    serveUnix({
      path: socket,
      mode: 0o700,
      clock,
      services: [
        {
          name: 'SpiffeWorkloadAPI',
          methods: {
            async FetchX509SVID(_: object, call: Call, send: Send) {
              calls++;
              assert.equal(call.metadata('workload.spiffe.io'), 'true');
              await answer(call, send);
            },
          },
        },
      ],
    });
  let serving: Awaited<ReturnType<typeof open>> | undefined;
  const source = x509Source(socket, { clock, random: systemRandom });
  t.after(async () => {
    source.close();
    await serving?.close(0);
    await rm(dir, { recursive: true, force: true });
  });
  const staysOpen = (call: Call) =>
    new Promise<void>((resolve) => call.signal.addEventListener('abort', () => resolve(), { once: true }));
  return {
    clock,
    source,
    svid,
    calls: () => calls,
    staysOpen,
    says(next: typeof answer) {
      answer = next;
    },
    async up() {
      serving = await open();
    },
    async down() {
      await serving?.close(0);
      serving = undefined;
    },
    current: () => source.current(new AbortController().signal),
    /** Lets real connections go on while time passes. */
    async pass(isSo: () => Promise<boolean>) {
      for (let step = 0; step < 300 && !(await isSo()); step++) {
        await clock.advance(1_000);
        await settle(20);
      }
      assert.ok(await isSo());
    },
  };
}

test('WA-10 WA-11 every identity is given in the order of the agent, and each update takes the place of the last', async (t) => {
  const { svid, says, staysOpen, up, current, calls, pass } = await rig(t);
  let update: () => void = () => {};
  says(async (call, send) => {
    await send({ svids: [svid('/b'), svid('/a')] });
    await new Promise<void>((resolve) => {
      update = resolve;
    });
    await send({ svids: [svid('/c', 30 * minute)] });
    await staysOpen(call);
  });
  await up();
  const first = await current();
  assert.deepEqual(
    first.map((one) => one.id),
    [id('/b'), id('/a')],
  );
  assert.equal(first[0]!.authorities.length, 1);
  assert.equal(await current().then(([one]) => one), first[0], 'the same until it changes');
  update();
  await pass(async () => (await current())[0]!.id === id('/c'));
  assert.equal(calls(), 1, 'all on one stream');
});

test('WA-6 WE-18 an agent that restarts is found again; what it gave holds in between, and not for longer than it lives', async (t) => {
  const { clock, svid, says, staysOpen, up, down, current, calls, pass } = await rig(t);
  says(async (call, send) => {
    await send({ svids: [svid('/a')] });
    await staysOpen(call);
  });
  await assert.rejects(current(), fault('peer/unavailable', /cannot reach "\S+api\.sock"/));
  await up();
  // It was asked for: that does not wait for its turn.
  const [first] = await current();
  await down();
  await clock.advance(minute);
  assert.equal((await current())[0], first);
  await clock.advance(10 * minute);
  await assert.rejects(
    current(),
    fault('svid/invalid', /the SVID of "spiffe:\/\/example\.org\/a" expired at .*gave no new one/),
  );
  await up();
  await pass(() =>
    current()
      .then(([one]) => one !== first)
      .catch(() => false),
  );
  assert.ok(calls() >= 2);
});

test('WA-13 no identity, an answer that is none, a caller that gives up: each is told as what it is', async (t) => {
  const { source, says, staysOpen, up, current, svid } = await rig(t);
  await up();
  says(() => {
    throw new Fault('caller/denied', 'no identity issued');
  });
  await assert.rejects(current(), fault('caller/denied', /has no identity for this process$/));
  says(async (_, send) => send({ svids: [] }));
  await assert.rejects(current(), fault('svid/invalid', /sent no X\.509-SVID/));
  says(async (_, send) => send({ svids: [{ ...svid('/a'), x509_svid_key: Buffer.from('no key') }] }));
  await assert.rejects(current(), fault('svid/invalid', /a key for "spiffe:\/\/example\.org\/a" that cannot be read/));
  says(async (_, send) => send({ svids: [{ ...svid('/a'), x509_svid: Buffer.from('hello') }] }));
  await assert.rejects(current());
  says(staysOpen);
  const patience = new AbortController();
  const waiting = source.current(patience.signal);
  patience.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
});
