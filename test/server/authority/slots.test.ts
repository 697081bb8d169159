/** The life of an authority as a table: each step from each state, for each id. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { activate, prepare, readSlots, revoke, type Slot, type Slots, taint } from '../../../server/authority/slots.ts';
import { Fault } from '../../../src/errors.ts';

const slot = (id: string, tainted = false): Slot => ({
  id,
  keyId: `key-${id}`,
  notBefore: 0,
  notAfter: 9,
  material: '',
  tainted,
});
const [a, b, c, bad] = [slot('a'), slot('b'), slot('c'), slot('b', true)];

/** Empty object: refused, as the message says. */
const table: [step: string, from: Slots, id: string, to: Slots | RegExp][] = [
  ['prepare', {}, 'c', { prepared: c }],
  ['prepare', { active: a, prepared: b }, 'c', { active: a, prepared: c }],
  ['activate', { prepared: a }, 'a', { active: a }],
  ['activate', { active: a, prepared: b }, 'b', { active: b, old: a }],
  ['activate', { active: a, prepared: c, old: b }, 'c', { active: c, old: a }],
  ['activate', { active: a, prepared: c, old: bad }, 'c', { active: c, old: a }],
  ['activate', { active: a }, 'a', /no prepared authority/],
  ['activate', { active: a, prepared: b }, 'a', /"a" is not the prepared one/],
  ['taint', { active: a, old: b }, 'b', { active: a, old: bad }],
  ['taint', { active: a, prepared: c, old: b }, 'b', { active: a, prepared: c, old: bad }],
  ['taint', { active: a, old: b }, 'a', /unable to taint the active authority/],
  ['taint', { active: a, prepared: c, old: b }, 'c', /unable to taint the prepared authority/],
  ['taint', { active: a }, 'b', /no old authority/],
  ['taint', { active: a, old: b }, 'x', /"x" is not the old one/],
  ['taint', { active: a, old: bad }, 'b', /"b" is already tainted/],
  ['revoke', { active: a, old: bad }, 'b', { active: a }],
  ['revoke', { active: a, prepared: c, old: bad }, 'b', { active: a, prepared: c }],
  ['revoke', { active: a, old: b }, 'b', /"b" is not tainted/],
  ['revoke', { active: a, old: bad }, 'a', /unable to revoke the active authority/],
  ['revoke', { active: a, prepared: c, old: bad }, 'c', /unable to revoke the prepared authority/],
  ['revoke', { active: a }, 'b', /no old authority/],
  ['revoke', { active: a, old: bad }, 'x', /"x" is not the old one/],
];

for (const [step, from, id, to] of table) {
  const holds = Object.entries(from).map(([name, { id, tainted }]) => `${name} ${id}${tainted ? ' (tainted)' : ''}`);
  test(`${step} ${id} with ${holds.join(', ') || 'nothing'}: ${to instanceof RegExp ? 'refused' : 'done'}`, () => {
    const before = structuredClone(from);
    const act = (): Slots => {
      if (step === 'prepare') return prepare(from, slot(id));
      return { activate, taint, revoke }[step as 'activate' | 'taint' | 'revoke'](from, id, 'X.509');
    };
    if (to instanceof RegExp) {
      assert.throws(act, (error) => error instanceof Fault && to.test(error.message) && error.hint !== undefined);
    } else {
      assert.deepEqual(act(), to);
    }
    assert.deepEqual(from, before, 'a step changes nothing in place');
  });
}

test('a stored document is read as it was written, and anything else is refused', () => {
  const slots = { active: a, prepared: c, old: bad };
  assert.deepEqual(readSlots(JSON.stringify(slots), 'x509@1'), slots);
  for (const text of [
    '',
    '{',
    '[1',
    '{"active":{}}',
    '{"active":{"id":1,"keyId":"k","material":"m"}}',
    'null',
    '7',
    '"x"',
  ]) {
    assert.throws(
      () => readSlots(text, 'x509@1'),
      (error) => error instanceof Fault && error.code === 'data/corrupt',
      text,
    );
  }
});
