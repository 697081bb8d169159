/** The order in which causes are ruled out, where no real agent can be brought to it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diagnose, type Facts } from '../../agent/diagnose.ts';

const facts: Facts = {
  now: 1_000_000,
  pid: 4242,
  exists: true,
  elsewhere: undefined,
  socket: '/run/api.sock',
  agentId: undefined,
  ready: false,
  lastSync: 0,
  outage: undefined,
  entryCount: 0,
  attestations: [],
  selectors: [],
  matching: [],
  nearest: [],
  refusals: [],
};

test('an agent that has never got its entries says so before it speaks of a want of them, and why', () => {
  assert.equal(diagnose(facts).cause, 'agent-not-ready');
  assert.equal(diagnose(facts).summary, 'the agent has never got its entries from the server');
  const away = diagnose({ ...facts, outage: 'cannot reach "server:8081"' });
  assert.equal(away.cause, 'agent-not-ready');
  assert.equal(away.summary, 'the agent has never got its entries from the server: cannot reach "server:8081"');
  assert.match(away.advice, /this node can reach it/);
  assert.equal(diagnose({ ...facts, ready: true }).cause, 'no-entries');
  assert.equal(diagnose({ ...facts, ready: true, outage: 'x' }).cause, 'server-unreachable');
});
