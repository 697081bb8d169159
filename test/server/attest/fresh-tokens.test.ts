import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freshTokens } from '../../../server/attest/fresh-tokens.ts';
import type { JoinToken, Tokens } from '../../../server/store/store.ts';

/** Tokens in memory, and which of them were asked for. */
function recorded(): { tokens: Tokens; asked: string[]; kept: Map<string, JoinToken> } {
  const kept = new Map<string, JoinToken>();
  const asked: string[] = [];
  const tokens: Tokens = {
    async create(token) {
      if (kept.has(token.value)) return 'taken';
      kept.set(token.value, token);
      return 'created';
    },
    async get(value) {
      asked.push(value);
      return kept.get(value);
    },
    prune: async () => 0,
  };
  return { tokens, asked, kept };
}

test('a token made here is asked for once without the database, and then with it', async () => {
  const { tokens, asked, kept } = recorded();
  const fresh = freshTokens(tokens);
  const token = { value: 'a', expiresAt: 100 };
  assert.equal(await fresh.create(token), 'created');
  assert.deepEqual(await fresh.get('a'), token);
  assert.deepEqual(asked, []);
  kept.delete('a');
  assert.equal(await fresh.get('a'), undefined);
  assert.deepEqual(asked, ['a']);
});

test('one that another server made, or that was there already, is the database’s to know', async () => {
  const { tokens, asked, kept } = recorded();
  kept.set('b', { value: 'b', expiresAt: 100 });
  const fresh = freshTokens(tokens);
  assert.equal(await fresh.create({ value: 'b', expiresAt: 200 }), 'taken');
  assert.deepEqual(await fresh.get('b'), { value: 'b', expiresAt: 100 });
  assert.deepEqual(asked, ['b']);
});

test('no more than a thousand are remembered, and the others found all the same', async () => {
  const { tokens, asked } = recorded();
  const fresh = freshTokens(tokens);
  for (let n = 0; n <= 1_000; n++) await fresh.create({ value: `t${n}`, expiresAt: n });
  assert.deepEqual(await fresh.get('t0'), { value: 't0', expiresAt: 0 });
  assert.deepEqual(await fresh.get('t1000'), { value: 't1000', expiresAt: 1_000 });
  assert.deepEqual(asked, ['t0']);
});
