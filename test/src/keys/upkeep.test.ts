import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type StoredKey, upkeepDue, uselessKeys } from '../../../src/keys/upkeep.ts';

const hour = 3_600_000;
const day = 24 * hour;
const now = 1000 * day;
const key = (parts: Partial<StoredKey>): StoredKey => ({ owner: 'us', id: 'a', made: now - day, ...parts });

for (const [what, keys, expected] of [
  ['the one key of a name, however old', [key({ made: 0, used: 0 })], []],
  ['the older of two, until 48 h', [key({ made: now - 48 * hour + 1 }), key({ made: now })], []],
  ['the older of two, from 48 h on', [key({ made: now - 48 * hour }), key({ made: now })], ['0 replaced']],
  ['equally old ones, since none is known to be older', [key({ made: 5 }), key({ made: 5 })], []],
  ['two names', [key({ made: 0 }), key({ made: now, id: 'b' })], []],
  ['the same name of two servers', [key({ made: 0 }), key({ made: now, owner: 'them', used: now })], []],
  ['names that would run together', [key({ made: 0, owner: 'a', id: 'b-c' }), key({ owner: 'a-b', id: 'c' })], []],
  ['what the store says is not current', [key({ made: 0, current: false })], ['0 replaced']],
  [
    'what the store says is current though older',
    [key({ made: 0, current: true }), key({ made: now - 3 * day, current: false })],
    ['1 replaced'],
  ],
  ['ours, silent for a year', [key({ made: 0, used: now - 365 * day })], []],
  ['theirs, silent for less than two weeks', [key({ owner: 'them', made: 0, used: now - 14 * day + 1 })], []],
  ['theirs, silent for two weeks', [key({ owner: 'them', made: 0, used: now - 14 * day })], ['0 abandoned']],
  ['theirs, made today and never marked', [key({ owner: 'them', made: now - hour, used: 0 })], []],
  ['theirs, where nothing says when they were used', [key({ owner: 'them', made: 0 })], []],
] as const) {
  test(`of ${what}: ${expected.join() || 'nothing'} is disposed of`, () => {
    const useless = uselessKeys(keys, 'us', now);
    assert.deepEqual(
      useless.map(({ key: one, why }) => `${keys.indexOf(one as never)} ${why}`),
      expected,
    );
  });
}

for (const [what, last, expected] of [
  ['at the start', {}, { keep: true, dispose: true, next: now + 6 * hour }],
  ['an hour later', { kept: now - hour, disposed: now - hour }, { keep: false, dispose: false, next: now + 5 * hour }],
  [
    'after 6 h',
    { kept: now - 6 * hour, disposed: now - 6 * hour },
    { keep: true, dispose: false, next: now + 6 * hour },
  ],
  [
    'after 23 h',
    { kept: now - 5 * hour, disposed: now - 23 * hour },
    { keep: false, dispose: false, next: now + hour },
  ],
  [
    'after 24 h',
    { kept: now - 6 * hour, disposed: now - 24 * hour },
    { keep: true, dispose: true, next: now + 6 * hour },
  ],
  [
    'when the clock was set back',
    { kept: now + day, disposed: now + day },
    { keep: true, dispose: true, next: now + 6 * hour },
  ],
] as const) {
  test(`${what} the upkeep is ${JSON.stringify(expected)}`, () => {
    assert.deepEqual(upkeepDue(last, now), expected);
  });
}
