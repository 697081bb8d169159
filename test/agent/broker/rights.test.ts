/** Who may refer to what, and from where: nobody unless named, and as the options say now. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Reference } from '../../../agent/broker/reference.ts';
import { brokerRights, type Place } from '../../../agent/broker/rights.ts';
import type { Fault } from '../../../src/errors.ts';
import { parseId, type SpiffeId } from '../../../src/spiffe/id.ts';

const [a, b, c, nobody] = ['a', 'b', 'c', 'nobody'].map((name) => parseId(`spiffe://example.org/${name}`)) as [
  SpiffeId,
  SpiffeId,
  SpiffeId,
  SpiffeId,
];
const process: Reference = { kind: 'process', pid: 7 };
const pod: Reference = { kind: 'pod', key: { namespace: 'shop', name: 'web-0' } };

test('BR-5 BR-11 each broker has what its lists give it, and nobody a process over the network', () => {
  const rights = brokerRights({ processes: [a], pods: [b], podsOverNetwork: [a, c], podNamespaces: [] });
  const allowed = (id: SpiffeId, reference: Reference, from: Place): boolean => {
    try {
      rights.requireReference(id, reference, from);
      rights.requireBroker(id, from);
      return true;
    } catch (error) {
      assert.equal((error as Fault).code, 'caller/denied');
      assert.equal((error as Fault).info, undefined);
      assert.ok((error as Fault).hint);
      return false;
    }
  };
  const given: string[] = [];
  for (const [name, id] of Object.entries({ a, b, c, nobody }))
    for (const from of ['socket', 'network'] as const)
      for (const reference of [process, pod])
        if (allowed(id, reference, from)) given.push(`${name} ${reference.kind} ${from}`);
  assert.deepEqual(given, ['a process socket', 'a pod network', 'b pod socket', 'c pod network']);
  assert.ok(!rights.isBroker(nobody, 'socket') && !rights.isBroker(nobody, 'network'));
});

test('what the options say now counts: brokers and namespaces come and go', () => {
  const options = { processes: [a], pods: [], podsOverNetwork: [], podNamespaces: [] as string[] };
  const rights = brokerRights(options);
  rights.requireReference(a, process, 'socket');
  rights.requireNamespace('any');
  options.processes = [b];
  options.podNamespaces = ['shop'];
  assert.throws(() => rights.requireReference(a, process, 'socket'), /may not refer to process 7 over the socket/);
  rights.requireReference(b, process, 'socket');
  rights.requireNamespace('shop');
  assert.throws(() => rights.requireNamespace('any'), /pods of namespace "any"/);
});
