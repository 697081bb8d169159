/** Where arithmetic is done is a matter of speed alone: the outcomes are the same, and nothing waits without end. */
import assert from 'node:assert/strict';
import { verify } from 'node:crypto';
import { test } from 'node:test';
import { generateKey } from '../../../src/crypto/algorithms.ts';
import { makeCsr, parseCsr } from '../../../src/crypto/csr.ts';
import { choosePlace, inTurn, workAt } from '../../../src/crypto/workplace.ts';
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

test('pieces of batches are begun in order, a few in each turn of the loop, and other work comes between', async () => {
  await turn();
  const seen: string[] = [];
  const batch = (name: string): Promise<string>[] =>
    Array.from({ length: 40 }, async (_, index) =>
      inTurn(() => {
        seen.push(`${name}${index}`);
        if (index === 3) throw new Error(`${name} fails`);
        return name;
      }),
    );
  const outcomes = Promise.allSettled([...batch('a'), ...batch('b')]);
  const begun = [seen.length];
  for (let n = 0; n < 5; n++) {
    await turn();
    begun.push(seen.length);
  }
  assert.deepEqual(begun, [16, 32, 48, 64, 80, 80]);
  assert.deepEqual(
    seen,
    ['a', 'b'].flatMap((name) => Array.from({ length: 40 }, (_, index) => `${name}${index}`)),
  );
  assert.equal((await outcomes).filter(({ status }) => status === 'rejected').length, 2);
});

test('X509-21 a request whose point is off its curve is malformed, in both places', async () => {
  const der = makeCsr(generateKey('ec-p256').privateKey);
  const { spki } = parseCsr(der);
  const broken = Buffer.from(der);
  broken[der.indexOf(spki) + spki.length - 1]! ^= 1;
  for (const place of ['here', 'aside'] as const)
    await assert.rejects(async () => parseCsr(broken).verifyAt(place), {
      code: 'der/invalid',
      message: 'certificate request key is malformed: it is not a valid key',
    });
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
