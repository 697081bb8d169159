/** Where arithmetic is done is a matter of speed alone: the outcomes are the same, and nothing waits without end. */
import assert from 'node:assert/strict';
import { verify } from 'node:crypto';
import { test } from 'node:test';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { makeCsr, parseCsr } from '../../../src/crypto/csr.ts';
import { choosePlace, workAt } from '../../../src/crypto/workplace.ts';
import { heldKey, signAt } from '../../../src/keys/key-store.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('the first call of a turn is worked on here, those that crowd with it aside', async () => {
  await turn();
  assert.deepEqual([choosePlace(), choosePlace(), choosePlace()], ['here', 'aside', 'aside']);
  await turn();
  assert.equal(choosePlace(), 'here');
});

test('while something is under way aside, so is what comes after', async () => {
  let finish = (_error: Error | null, _value: number): void => {};
  const work = workAt('aside', assert.fail, (done: typeof finish) => {
    finish = done;
  });
  await turn();
  assert.equal(choosePlace(), 'aside');
  finish(null, 7);
  assert.equal(await work, 7);
  assert.equal(choosePlace(), 'here');
});

test('what finds no room aside is done here, and a failure gives its room back', async () => {
  const started: ((error: Error | null, value: string) => void)[] = [];
  const put = () =>
    workAt<string>(
      'aside',
      () => 'here',
      (done) => void started.push(done),
    );
  const waiting: Promise<string>[] = [];
  let outcome = put();
  for (; outcome instanceof Promise && waiting.length < 10_000; outcome = put()) waiting.push(outcome);
  assert.equal(outcome, 'here');
  for (const done of started.splice(0)) done(new Error('no'), '');
  for (const one of waiting) await assert.rejects(one, /no/);
  assert.ok(put() instanceof Promise);
  started.pop()?.(null, '');
  await assert.rejects(async () =>
    workAt('aside', assert.fail, () => {
      throw new Error('not started');
    }),
  );
  await turn();
  assert.equal(choosePlace(), 'here');
});

for (const type of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`X509-21 a request and a signature of ${type} come out alike in both places`, async () => {
    const { privateKey, publicKey } = generateKey(type);
    const der = makeCsr(privateKey, { uri: 'spiffe://example.org/w' });
    const broken = Buffer.from(der);
    broken[broken.length - 3]! ^= 1;
    const key = heldKey('k', privateKey);
    for (const place of ['here', 'aside'] as const) {
      assert.equal(await parseCsr(der).verifyAt(place), true);
      assert.equal(await parseCsr(broken).verifyAt(place), false);
      const data = Buffer.from('to be signed');
      const signature = await signAt(place, key, data, 'raw');
      const hash = type === 'ec-p384' ? 'sha384' : 'sha256';
      assert.ok(verify(hash, data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature));
    }
  });
}
