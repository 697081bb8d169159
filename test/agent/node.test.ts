import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeRecord } from '../../agent/state.ts';
import { parseCertificate } from '../../src/crypto/certificate.ts';
import { Fault } from '../../src/errors.ts';
import { id } from './support/fake-server.ts';
import { nodeRig } from './support/node-rig.ts';

const minute = 60_000;
const unreachable = new Fault('peer/unavailable', 'cannot reach the server');

test('a new agent attests, saves SVID and key before it uses them, and is attested', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  const [record] = rig.saved as NodeRecord[];
  assert.equal(record?.id, id('/spire/agent/join_token/the-token'));
  assert.equal(record.reattestable, false);
  assert.deepEqual(node.state.value, { kind: 'attested', node: record });
  assert.deepEqual(rig.server.calls, ['AttestAgent', 'GetBundle']);
});

test('a usable SVID from disk is used without a word to the server', async () => {
  const rig = nodeRig();
  await rig.make().start(rig.signal, false);
  rig.server.calls.length = 0;
  const again = rig.make(rig.saved[0] as NodeRecord);
  await again.start(rig.signal, false);
  assert.equal(again.current(), rig.saved[0]);
  assert.deepEqual(rig.server.calls, []);
});

for (const [name, refusal] of [
  ['a used join token', new Fault('input/invalid', 'join token does not exist or has already been used')],
  ['a ban (PERMISSION_DENIED without details)', new Fault('caller/denied', 'failed to attest: agent is banned')],
  ['an attestation type the server does not know', new Fault('state/refused', 'unknown type')],
] as const) {
  test(`the first attestation ends at once when refused for ${name}`, async () => {
    const rig = nodeRig();
    rig.server.instead.set('AttestAgent', () => {
      throw refusal;
    });
    await assert.rejects(rig.make().start(rig.signal, false), (fault: Fault) =>
      fault.message.includes(refusal.message),
    );
    assert.equal(rig.server.count('AttestAgent'), 1);
  });
}

test('the first attestation is tried again for a minute while the server is away, then given up', async () => {
  const rig = nodeRig();
  rig.server.outage = unreachable;
  const started = assert.rejects(rig.make().start(rig.signal, false), /cannot reach the server/);
  await rig.clock.advance(2 * minute);
  await started;
  assert.ok(rig.server.count('AttestAgent') > 5);
});

test('an attestation that works on the third attempt is enough', async () => {
  const rig = nodeRig();
  rig.server.outage = unreachable;
  const node = rig.make();
  const started = node.start(rig.signal, false);
  await rig.clock.advance(2_000);
  rig.server.outage = undefined;
  await rig.clock.advance(5_000);
  await started;
  assert.equal(node.state.value.kind, 'attested');
});

test('an expired SVID and no method to attest is refused with what to do', async () => {
  const rig = nodeRig();
  await rig.make().start(rig.signal, false);
  const other = nodeRig({ method: null });
  const kept = { ...(rig.saved[0] as NodeRecord), notAfter: 0 };
  await assert.rejects(other.make(kept).start(other.signal, false), (fault: Fault) => {
    assert.match(fault.message, /agent SVID of .* has expired, and no way to attest is configured/);
    assert.match(fault.hint!, /join token/);
    return true;
  });
});

test('an SVID for anything but an agent of the trust domain is refused', async () => {
  const rig = nodeRig();
  rig.server.instead.set('AttestAgent', (usual) => {
    const { result } = usual() as any;
    const { spki: publicKey } = parseCertificate(result.svid.cert_chain[0]);
    return {
      result: { ...result, svid: { ...result.svid, cert_chain: [rig.server.authority.issue({ publicKey }).der] } },
    };
  });
  await assert.rejects(rig.make().start(rig.signal, false), /which is not the ID of an agent of "example.org"/);
  assert.equal(rig.saved.length, 0);
});

test('a join token agent renews by RenewAgent at half life, with a new key, and comes back as itself', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  await rig.clock.advance(29 * minute);
  assert.equal(rig.server.count('RenewAgent'), 0);
  await rig.clock.advance(2 * minute);
  assert.equal(rig.server.count('RenewAgent'), 1);
  const [first, second] = rig.saved as NodeRecord[];
  assert.equal(second?.id, first?.id);
  assert.ok(!second?.pkcs8.equals(first!.pkcs8));
  // The old SVID stays good until the new one is used; then the server knows the new one alone.
  await rig.link.call((api) => api.postStatus('1'));
  assert.equal(rig.server.nodes.get(first!.id)?.nextSerial, undefined);
  rig.stop();
});

test('the renewal time is drawn once for each SVID: looking again does not bring it nearer', async () => {
  // 0.999 draws the earliest time, 0 the latest; only the first draw may count.
  const rig = nodeRig({ units: [0] });
  const node = rig.make();
  await node.start(rig.signal, false);
  const { notAfter, notBefore, renewAt } = node.current()!;
  assert.equal(renewAt, notAfter - ((notAfter - notBefore) / 2) * 0.9);
  rig.run(node);
  await rig.clock.advance(renewAt - rig.clock.now() - 1);
  assert.equal(rig.server.count('RenewAgent'), 0);
  await rig.clock.advance(1);
  assert.equal(rig.server.count('RenewAgent'), 1);
  rig.stop();
});

test('a node that can attest anew does so at half life', async () => {
  const rig = nodeRig({ type: 'fake' });
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  await rig.clock.advance(31 * minute);
  assert.equal(rig.server.count('AttestAgent'), 2);
  assert.equal(rig.server.count('RenewAgent'), 0);
  rig.stop();
});

// What each refusal with a reason makes an agent do (spire-wire §3).
for (const { reason, type, expected } of [
  { reason: 'AGENT_EXPIRED', type: 'fake', expected: 'anew' },
  { reason: 'AGENT_NOT_ATTESTED', type: 'fake', expected: 'anew' },
  { reason: 'AGENT_NOT_ACTIVE', type: 'fake', expected: 'anew' },
  { reason: 'AGENT_MUST_REATTEST', type: 'fake', expected: 'anew' },
  { reason: 'AGENT_BANNED', type: 'fake', expected: 'ends' },
  { reason: 'AGENT_NOT_ATTESTED', type: 'join_token', expected: 'ends' },
  { reason: 'AGENT_NOT_ACTIVE', type: 'join_token', expected: 'ends' },
  { reason: 'AGENT_BANNED', type: 'join_token', expected: 'ends' },
] as const) {
  test(`${reason} on any call: an agent of ${type} ${expected === 'anew' ? 'attests anew' : 'forgets its SVID and ends'}`, async () => {
    const rig = nodeRig({ type });
    const node = rig.make();
    await node.start(rig.signal, false);
    rig.run(node);
    rig.server.instead.set('BatchNewX509SVID', () => {
      throw new Fault('caller/denied', 'no', { reason });
    });
    await assert.rejects(rig.link.call((api) => api.newX509Svids([{ entryId: 'e', csr: Buffer.alloc(0) }])));
    await rig.clock.advance(0);
    if (expected === 'anew') {
      assert.equal(rig.server.count('AttestAgent'), 2);
      assert.equal(node.state.value.kind, 'attested');
    } else {
      assert.equal(rig.server.count('AttestAgent'), 1);
      assert.equal(node.state.value.kind, 'evicted');
      assert.equal(rig.saved.at(-1), 'forgotten');
      assert.equal(rig.ended?.reason, reason);
      assert.ok(rig.ended?.hint);
    }
    rig.stop();
  });
}

test('an evicted join token agent cannot use its connection any more', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  rig.server.nodes.clear();
  await assert.rejects(rig.link.call((api) => api.postStatus('1')));
  await rig.clock.advance(0);
  await assert.rejects(
    rig.link.call((api) => api.postStatus('1')),
    /not attested/,
  );
  rig.stop();
});

test('banned while attesting anew: the agent forgets its SVID and ends, without trying for ever', async () => {
  const rig = nodeRig({ type: 'fake' });
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  rig.server.nodes.get(node.current()!.id)!.banned = true;
  rig.server.instead.set('BatchNewX509SVID', () => {
    throw new Fault('caller/denied', 'no', { reason: 'AGENT_NOT_ACTIVE' });
  });
  await assert.rejects(rig.link.call((api) => api.newX509Svids([{ entryId: 'e', csr: Buffer.alloc(0) }])));
  await rig.clock.advance(0);
  assert.equal(node.state.value.kind, 'evicted');
  rig.stop();
});

test('a data directory that the server has forgotten is attested anew with the token given now', async () => {
  const before = nodeRig();
  await before.make().start(before.signal, false);
  const rig = nodeRig({ token: 'another' });
  rig.server.tokens.add('another');
  const node = rig.make(before.saved[0] as NodeRecord);
  await node.start(rig.signal, false);
  rig.run(node);
  await assert.rejects(rig.link.call((api) => api.postStatus('1')));
  await rig.clock.advance(0);
  assert.equal(node.current()?.id, id('/spire/agent/join_token/another'));
  rig.stop();
});

test('a renewal that fails is tried again with backoff, and the old SVID is used meanwhile', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  const first = node.current();
  rig.run(node);
  rig.server.outage = unreachable;
  await rig.clock.advance(40 * minute);
  assert.equal(node.current(), first);
  assert.ok(rig.server.count('RenewAgent') > 3 && rig.server.count('RenewAgent') < 40);
  rig.server.outage = undefined;
  await rig.clock.advance(2 * minute);
  assert.notEqual(node.current(), first);
  rig.stop();
});

test('a server that says when it can renew is not asked before, as long as the SVID lasts', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  const first = node.current()!;
  rig.run(node);
  rig.server.outage = new Fault('limit/exceeded', 'too many at once', { retryAfterMs: 5 * minute });
  await rig.clock.advance(first.renewAt - rig.clock.now());
  const began = rig.server.count('RenewAgent');
  await rig.clock.advance(5 * minute - 1);
  assert.equal(rig.server.count('RenewAgent'), began);
  await rig.clock.advance(1);
  assert.equal(rig.server.count('RenewAgent'), began + 1);
  await rig.clock.advance(first.notAfter - 3 * minute - rig.clock.now());
  const late = rig.server.count('RenewAgent');
  await rig.clock.advance(2 * minute);
  assert.ok(rig.server.count('RenewAgent') > late, 'before the end it is asked all the same');
  rig.stop();
});

test('a join token agent whose SVID runs out while the server is away ends with what to do', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  rig.server.outage = unreachable;
  await rig.clock.advance(63 * minute);
  assert.match(rig.ended?.message, /expired before it could be renewed/);
  assert.match(rig.ended?.hint, /join token/);
  rig.stop();
});

test('an agent that can attest anew outlives its SVID', async () => {
  const rig = nodeRig({ type: 'fake' });
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  rig.server.outage = unreachable;
  await rig.clock.advance(90 * minute);
  assert.equal(rig.ended, undefined);
  rig.server.outage = undefined;
  await rig.clock.advance(2 * minute);
  assert.ok(node.current()!.notAfter > rig.clock.now());
  rig.stop();
});

test('a tainted authority behind the SVID makes the agent renew at once, and once', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  const [authority] = rig.ownBundle.value.x509Authorities;
  rig.ownBundle.set({ ...rig.ownBundle.value, x509Authorities: [{ ...authority!, tainted: true }], sequence: 2n });
  await rig.clock.advance(0);
  assert.equal(rig.server.count('RenewAgent'), 1);
  rig.ownBundle.set({ ...rig.ownBundle.value, sequence: 3n });
  await rig.clock.advance(minute / 3);
  assert.equal(rig.server.count('RenewAgent'), 1);
  // This server goes on signing by it: it is asked again, without haste.
  await rig.clock.advance(2 * minute);
  const again = rig.server.count('RenewAgent') - 1;
  assert.ok(again >= 2 && again <= 4, `${again} times`);
  rig.stop();
});

test('a taint that came before the agent was started again makes it renew at once, and once', async () => {
  const rig = nodeRig();
  await rig.make().start(rig.signal, false);
  const [kept] = rig.saved as NodeRecord[];
  const [authority] = rig.ownBundle.value.x509Authorities;
  rig.ownBundle.set({ ...rig.ownBundle.value, x509Authorities: [{ ...authority!, tainted: true }], sequence: 2n });
  const again = rig.make(kept);
  await again.start(rig.signal, false);
  rig.run(again);
  await rig.clock.advance(0);
  assert.equal(rig.server.count('RenewAgent'), 1);
  await rig.clock.advance(minute / 3);
  assert.equal(rig.server.count('RenewAgent'), 1);
  assert.equal(rig.server.count('AttestAgent'), 1, 'it is the same agent');
  rig.stop();
});

test('a clock set past the renewal is noticed at once; set back before the SVID, that one is replaced', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  rig.run(node);
  await rig.clock.advance(minute);
  rig.clock.set(rig.clock.now() + 45 * minute);
  await rig.clock.advance(2_000);
  assert.equal(rig.server.count('RenewAgent'), 0, 'the timer goes on as before');
  node.clockSet();
  await rig.clock.advance(2_000);
  assert.equal(rig.server.count('RenewAgent'), 1);
  rig.clock.set(rig.clock.now() - 120 * minute);
  node.clockSet();
  await rig.clock.advance(2_000);
  assert.equal(rig.server.count('RenewAgent'), 2);
  assert.ok(node.current()!.notBefore <= rig.clock.now());
  node.clockSet();
  await rig.clock.advance(5 * minute);
  assert.equal(rig.server.count('RenewAgent'), 2, 'and is left alone from then on');
  rig.stop();
});

test('AGENT_EXPIRED for an SVID that is valid here says that a clock is wrong: nothing is forgotten until it expires here too', async () => {
  const rig = nodeRig();
  const node = rig.make();
  await node.start(rig.signal, false);
  const held = node.current()!;
  rig.run(node);
  rig.server.instead.set('BatchNewX509SVID', () => {
    throw new Fault('caller/denied', 'no', { reason: 'AGENT_EXPIRED' });
  });
  const call = () => rig.link.call((api) => api.newX509Svids([{ entryId: 'e', csr: Buffer.alloc(0) }]));
  await assert.rejects(call());
  await rig.clock.advance(2 * minute);
  assert.equal(node.current(), held);
  assert.deepEqual(rig.saved, [held]);
  rig.clock.set(held.notAfter - 30_000);
  await assert.rejects(call());
  await rig.clock.advance(0);
  assert.equal(node.state.value.kind, 'evicted');
  assert.equal(rig.ended?.reason, 'AGENT_EXPIRED');
  rig.stop();
});
