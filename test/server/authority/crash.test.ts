/**
 * A crash, or a store that fails, between any two writes of any step: after a restart, or without one, the server signs with
 * an authority that is published and whose key it has, nothing is left over, and the step can be done again.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { type Authority, type AuthorityKind, startAuthority } from '../../../server/authority/authority.ts';
import { jwtKind } from '../../../server/authority/jwt.ts';
import { ownBundle } from '../../../server/authority/own-bundle.ts';
import { x509Kind } from '../../../server/authority/x509.ts';
import { openStore } from '../../../server/store/open.ts';
import type { Bundles, Journal } from '../../../server/store/store.ts';
import type { KeyStore } from '../../../src/keys/key-store.ts';
import { memoryKeys } from '../../../src/keys/memory.ts';
import { silentLog } from '../../../src/log.ts';
import { systemRandom } from '../../../src/run/random.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { drivenClock } from '../../support/clock.ts';

const hour = 3_600_000;
const store = await openStore({ url: 'sqlite::memory:' });
after(() => store.close());
let worlds = 0;

type When = 'before' | 'after';

/** Ports that fail at the `at`-th write: before it is done, or after it was and nobody heard. */
function failing() {
  let left = Number.POSITIVE_INFINITY;
  let when: When = 'before';
  let dead = false;
  let staysDead = false;
  const step = async <T>(work: () => Promise<T>): Promise<T> => {
    if (dead) throw new Error('dead');
    if (--left > 0) return work();
    left = Number.POSITIVE_INFINITY;
    dead = staysDead;
    if (when === 'after') await work();
    throw new Error('crash');
  };
  return {
    /** @param crash nothing works from then on, as when the process is gone */
    failAt(at: number, how: When, crash: boolean): void {
      left = at;
      when = how;
      staysDead = crash;
    },
    get fired() {
      return left === Number.POSITIVE_INFINITY;
    },
    disarm(): void {
      left = Number.POSITIVE_INFINITY;
    },
    journal: {
      get: store.journal.get,
      list: store.journal.list,
      put: (...args) => step(() => store.journal.put(...args)),
    } satisfies Journal,
    bundles: { ...store.bundles, put: (...args) => step(() => store.bundles.put(...args)) } satisfies Bundles,
    keys: (keys: KeyStore): KeyStore => ({
      ...keys,
      generate: (...args) => step(() => keys.generate(...args)),
      remove: (...args) => step(() => keys.remove(...args)),
    }),
  };
}

function place(name: 'X.509' | 'JWT') {
  const trustDomain = parseTrustDomain(`td-${++worlds}`);
  const clock = drivenClock();
  const keys = memoryKeys();
  const subject = { country: ['US'], organization: ['SPIFFE'], commonName: '' };
  const kind = (
    name === 'JWT' ? jwtKind(24 * hour, systemRandom) : x509Kind(trustDomain, subject, 24 * hour, systemRandom)
  ) as AuthorityKind<{ key: { id: string } }>;
  async function start(ports = failing()) {
    const authority = await startAuthority(kind, {
      journal: ports.journal,
      keys: ports.keys(keys),
      bundle: ownBundle(ports.bundles, trustDomain, 300),
      clock,
      random: systemRandom,
      log: silentLog,
      serverName: trustDomain,
      keyType: 'ec-p256',
    });
    return { authority, ports };
  }
  const bundle = async () => (await store.bundles.get(trustDomain)) as Bundle;
  const published = async (): Promise<Map<string, boolean>> => {
    const { x509Authorities, jwtAuthorities } = await bundle();
    return new Map(
      name === 'JWT'
        ? jwtAuthorities.map((one) => [one.keyId, one.tainted])
        : x509Authorities.map((one) => [one.certificate.toString('base64'), one.tainted]),
    );
  };
  const mark = (slot: { id: string; material: string }): string => (name === 'JWT' ? slot.id : slot.material);

  async function check(
    authority: Authority<{ key: { id: string } }>,
    leftOver: 'no left-overs' | 'or not',
  ): Promise<void> {
    const slots = authority.state();
    const inBundle = await published();
    const held = (await keys.list()).map(({ id }) => id);
    assert.ok(slots.active, 'there is an active authority');
    assert.equal(authority.signer.value.key.id, slots.active.keyId, 'it is the one that signs');
    assert.equal(inBundle.get(mark(slots.active)), false, 'it is published, and not tainted');
    for (const slot of [slots.active, slots.prepared])
      if (slot) assert.ok(held.includes(slot.keyId), 'its key is there');
    if (leftOver === 'or not') return;
    for (const slot of [slots.prepared, slots.old]) {
      if (slot) assert.equal(inBundle.get(mark(slot)), slot.tainted, 'the bundle says what the journal says');
    }
    const named = [slots.active, slots.prepared, slots.old].map((slot) => slot?.keyId);
    for (const id of held) assert.ok(named.includes(id), 'no key is left over');
  }
  return { start, check, clock, keys, bundle };
}

type Subject = Authority<{ key: { id: string } }>;
const prepared = (authority: Subject): string => authority.state().prepared?.id ?? 'none';
const old = (authority: Subject): string => authority.state().old?.id ?? 'none';

/** How to get to where the step can be done, the step, and whether it has been done. */
const steps: Record<
  string,
  [ready: (one: Subject) => Promise<unknown>, act: (one: Subject) => Promise<unknown>, done: (one: Subject) => boolean]
> = {
  prepare: [async () => {}, (one) => one.prepare(), (one) => one.state().prepared !== undefined],
  'prepare anew': [(one) => one.prepare(), (one) => one.prepare(), (one) => one.state().prepared !== undefined],
  activate: [(one) => one.prepare(), (one) => one.activate(prepared(one)), (one) => one.state().old !== undefined],
  'activate over an old one': [
    async (one) => {
      await one.prepare();
      await one.activate(prepared(one));
      await one.prepare();
    },
    (one) => one.activate(prepared(one)),
    (one) => one.state().prepared === undefined,
  ],
  taint: [
    async (one) => {
      await one.prepare();
      await one.activate(prepared(one));
    },
    (one) => one.taint(old(one)),
    (one) => one.state().old?.tainted === true,
  ],
  revoke: [
    async (one) => {
      await one.prepare();
      await one.activate(prepared(one));
      await one.taint(old(one));
    },
    (one) => one.revoke(old(one)),
    (one) => one.state().old === undefined,
  ],
};

for (const kind of ['X.509', 'JWT'] as const) {
  describe(`${kind} authority`, () => {
    for (const [name, [ready, act, done]] of Object.entries(steps)) {
      test(`a crash at any write of "${name}" leaves what a restart makes whole, and the step can be done again`, async () => {
        let writes = 0;
        for (let at = 1, fired = true; fired; at++) {
          for (const when of ['before', 'after'] as const) {
            const { start, check } = place(kind);
            const first = await start();
            await ready(first.authority);
            first.ports.failAt(at, when, true);
            const outcome = await act(first.authority).then(
              () => 'done',
              () => 'failed',
            );
            fired = first.ports.fired;
            if (!fired) break;
            writes = at;
            assert.equal(outcome, 'failed');
            const { authority } = await start();
            await check(authority, 'no left-overs');
            if (!done(authority)) await act(authority);
            assert.ok(done(authority));
            await check(authority, 'no left-overs');
          }
        }
        assert.ok(writes >= 1, 'there was a place to fail');
      });

      test(`a write that fails in "${name}" leaves a server that goes on, and the step can be done again`, async () => {
        for (let at = 1, fired = true; fired; at++) {
          for (const when of ['before', 'after'] as const) {
            const { start, check } = place(kind);
            const { authority, ports } = await start();
            await ready(authority);
            ports.failAt(at, when, false);
            await act(authority).catch(() => {});
            fired = ports.fired;
            if (!fired) break;
            await check(authority, 'or not');
            await authority.keepFresh();
            if (!done(authority)) await act(authority);
            assert.ok(done(authority));
            await authority.keepFresh();
            await check(authority, 'or not');
          }
        }
      });
    }

    test('a crash at any write of the very first start is made good by the next one', async () => {
      for (let at = 1, fired = true; fired; at++) {
        for (const when of ['before', 'after'] as const) {
          const { start, check } = place(kind);
          const ports = failing();
          ports.failAt(at, when, true);
          await start(ports).catch(() => {});
          fired = ports.fired;
          const { authority } = await start();
          await check(authority, 'no left-overs');
        }
      }
    });

    test('FED-1 what was prepared while the bundle could not be written is published before it signs', async () => {
      const { start, check } = place(kind);
      const { authority, ports } = await start();
      // Key, journal, bundle: the third write fails.
      ports.failAt(3, 'before', false);
      await assert.rejects(authority.prepare());
      const waiting = authority.state().prepared;
      assert.ok(waiting, 'it is in the journal all the same');
      await authority.activate(waiting.id);
      await check(authority, 'no left-overs');
    });

    test('what could not be published is published at the next look, by itself', async () => {
      const { start, check } = place(kind);
      const { authority, ports } = await start();
      await authority.prepare();
      await authority.activate(prepared(authority));
      ports.failAt(2, 'before', false);
      await assert.rejects(authority.taint(old(authority)));
      await authority.keepFresh();
      await check(authority, 'no left-overs');
      assert.equal(authority.state().old?.tainted, true);
    });

    test('a taint whose bundle could not be written can be asked for again', async () => {
      const { start, check } = place(kind);
      const { authority, ports } = await start();
      await authority.prepare();
      await authority.activate(prepared(authority));
      ports.failAt(2, 'before', false);
      await assert.rejects(authority.taint(old(authority)));
      await authority.taint(old(authority));
      await check(authority, 'no left-overs');
      await assert.rejects(authority.taint(old(authority)), /already tainted/);
    });

    test('a lost key of the active authority: a new authority is made at the start, the old one stays published', async () => {
      const { start, check, keys, bundle } = place(kind);
      const { authority } = await start();
      const lost = authority.state().active!;
      await keys.remove(lost.keyId);
      const next = (await start()).authority;
      await check(next, 'no left-overs');
      assert.notEqual(next.state().active?.id, lost.id);
      assert.equal(next.state().old?.id, lost.id);
      assert.equal((await bundle())[kind === 'JWT' ? 'jwtAuthorities' : 'x509Authorities'].length, 2);
    });

    test('a lost key of the prepared authority: another one is prepared in time', async () => {
      const { start, check, keys, clock } = place(kind);
      const { authority } = await start();
      const lost = await authority.prepare();
      await keys.remove(lost.keyId);
      await assert.rejects(authority.activate(lost.id), /has lost its key/);
      clock.jump(23 * hour);
      await authority.keepFresh();
      await check(authority, 'or not');
      assert.notEqual(authority.state().active?.id, lost.id);
      assert.ok((authority.state().active?.notAfter as number) > clock.now());
    });

    test('a clock that jumped past everything heals at the next look', async () => {
      for (const withPrepared of [false, true]) {
        const { start, clock, check } = place(kind);
        const { authority } = await start();
        if (withPrepared) await authority.prepare();
        clock.jump(1000 * hour);
        await authority.keepFresh();
        assert.ok((authority.state().active?.notAfter as number) > clock.now());
        await check(authority, 'or not');
        clock.jump(1000 * hour);
        const next = (await start()).authority;
        assert.ok((next.state().active?.notAfter as number) > clock.now());
        await check(next, 'or not');
      }
    });

    test('an expired prepared authority is not activated', async () => {
      const { start, clock } = place(kind);
      const { authority } = await start();
      const { id } = await authority.prepare();
      clock.jump(25 * hour);
      await assert.rejects(authority.activate(id), /has expired/);
    });

    test('a clock before the active authority is refused at the start, with both times; ten seconds are forgiven', async () => {
      const { start, clock } = place(kind);
      await start();
      const began = clock.now();
      clock.jump(-9_000);
      await start();
      clock.jump(-60_000);
      await assert.rejects(start(), (error: Error) => {
        assert.match(
          error.message,
          new RegExp(
            `the clock says ${new Date(clock.now()).toISOString()}, before the active ${kind} authority became valid at ${new Date(began - 10_000).toISOString()}`,
          ),
        );
        return true;
      });
    });

    test('two processes on one data directory: the second writer is told, and changes nothing', async () => {
      const { start } = place(kind);
      const one = (await start()).authority;
      const two = (await start()).authority;
      await one.prepare();
      await assert.rejects(two.prepare(), /changed by another process/);
    });

    test('many steps asked for at once are done one after the other', async () => {
      const { start, check } = place(kind);
      const { authority } = await start();
      await Promise.all([authority.prepare(), authority.prepare(), authority.prepare(), authority.keepFresh()]);
      await check(authority, 'no left-overs');
    });
  });
}
