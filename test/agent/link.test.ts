import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type OpenApi, serverLink } from '../../agent/link.ts';
import type { NodeRecord } from '../../agent/state.ts';
import { Fault } from '../../src/errors.ts';
import { drivenClock } from '../support/clock.ts';

const denied = new Fault('caller/denied', 'no', { reason: 'AGENT_NOT_ACTIVE' });

function rig() {
  const clock = drivenClock();
  const closed: number[] = [];
  let opened = 0;
  const link = serverLink(clock, () => {
    const number = opened++;
    return { close: () => closed.push(number), number } as unknown as OpenApi;
  });
  const told: Fault[] = [];
  link.onDenied((fault) => told.push(fault));
  return { clock, closed, link, told, record: {} as NodeRecord };
}

test('a refusal with a reason is reported, whoever made the call; one without is not', async () => {
  const { link, told, record } = rig();
  link.renewed(record);
  await assert.rejects(link.call(() => Promise.reject(denied)));
  await assert.rejects(link.call(() => Promise.reject(new Fault('caller/denied', 'no'))));
  assert.deepEqual(told, [denied]);
});

test('a refusal on a connection that was replaced meanwhile says nothing of the new one', async () => {
  const { link, told, record } = rig();
  link.renewed(record);
  const { promise, reject } = Promise.withResolvers<never>();
  const call = link.call(() => promise);
  link.renewed(record);
  reject(denied);
  await assert.rejects(call, denied);
  assert.deepEqual(told, []);
});

test('calls on a replaced connection have half a minute to end', async () => {
  const { clock, closed, link, record } = rig();
  link.renewed(record);
  link.renewed(record);
  await clock.advance(29_999);
  assert.deepEqual(closed, []);
  await clock.advance(1);
  assert.deepEqual(closed, [0]);
});

test('closing closes the replaced connections too, each once', async () => {
  const { clock, closed, link, record } = rig();
  link.renewed(record);
  link.renewed(record);
  link.close();
  await clock.advance(60_000);
  assert.deepEqual(closed, [0, 1]);
});

test('without an SVID there is nothing to call with, and attestation has a connection of its own', async () => {
  const { closed, link } = rig();
  await assert.rejects(
    link.call(async () => {}),
    (fault: Fault) => fault.status === 14,
  );
  await link.attesting(async () => {});
  await assert.rejects(link.attesting(() => Promise.reject(denied)));
  assert.deepEqual(closed, [0, 1]);
});
