/** What every key store must do, run once for each. */
import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';
import { test } from 'node:test';
import { describeSpki, keyTypeOfShape, keyTypes } from '../../src/crypto/algorithms.ts';
import type { Key, KeyStore } from '../../src/keys/key-store.ts';

export interface KeyStoreUnderTest {
  keys: KeyStore;
  /** Opens the same store anew, as a restart would; absent where nothing outlives the process. */
  reopen?(): Promise<KeyStore>;
  close(): Promise<void>;
}

/** @param make an empty store, with its own place */
export function keyStoreSuite(name: string, make: () => Promise<KeyStoreUnderTest>): void {
  const claim = (what: string, body: (under: KeyStoreUnderTest) => Promise<void>): void => {
    test(`${name}: ${what}`, async () => {
      const under = await make();
      try {
        await body(under);
      } finally {
        await under.close();
      }
    });
  };

  for (const type of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
    claim(`a ${type} key signs for certificates and for tokens`, async ({ keys }) => {
      const key = await keys.generate('a', type);
      assert.equal(key.id, 'a');
      assert.equal(key.type, type);
      assert.equal(keyTypeOfShape(describeSpki(key.publicKey)), type);
      await signs(key);
    });
  }

  claim('a name that is not there gives nothing, and forgetting it is no failure', async ({ keys }) => {
    assert.equal(await keys.get('a'), undefined);
    await keys.remove('a');
    assert.deepEqual(await keys.list(), []);
  });

  claim('keys are found by name and listed by name', async ({ keys }) => {
    for (const id of ['x509-CA-B', 'JWT-Signer-A', '__proto__', 'a b/c']) await keys.generate(id, 'ec-p256');
    assert.deepEqual(
      (await keys.list()).map(({ id }) => id),
      ['JWT-Signer-A', '__proto__', 'a b/c', 'x509-CA-B'],
    );
    for (const { id, publicKey } of await keys.list()) assert.deepEqual((await keys.get(id))?.publicKey, publicKey);
  });

  claim('a new key takes the place of the old one, which goes on signing where it is held', async ({ keys }) => {
    const old = await keys.generate('a', 'ec-p256');
    const fresh = await keys.generate('a', 'ec-p384');
    assert.notDeepEqual(old.publicKey, fresh.publicKey);
    assert.deepEqual((await keys.get('a'))?.publicKey, fresh.publicKey);
    assert.equal((await keys.list()).length, 1);
    await signs(old);
    await signs(fresh);
  });

  claim('a key that is removed is gone, and no other', async ({ keys }) => {
    await keys.generate('a', 'ec-p256');
    await keys.generate('b', 'ec-p256');
    await keys.remove('a');
    assert.equal(await keys.get('a'), undefined);
    assert.deepEqual(
      (await keys.list()).map(({ id }) => id),
      ['b'],
    );
  });

  claim('many changes at once all count', async ({ keys }) => {
    await Promise.all(Array.from({ length: 12 }, (_, index) => keys.generate(`key-${index}`, 'ec-p256')));
    await Promise.all(Array.from({ length: 6 }, (_, index) => keys.remove(`key-${index}`)));
    assert.deepEqual(
      (await keys.list()).map(({ id }) => id).sort(),
      Array.from({ length: 6 }, (_, index) => `key-${index + 6}`).sort(),
    );
  });

  claim('a key that can leave its store leaves as PKCS#8 of the same key', async ({ keys }) => {
    const key = await keys.generate('a', 'ec-p256');
    if (key.exportPkcs8 === undefined) return;
    const again = createPublicKey({ key: key.exportPkcs8(), format: 'der', type: 'pkcs8' } as never);
    assert.deepEqual(again.export({ format: 'der', type: 'spki' }), key.publicKey);
  });

  claim('what was made is there after a restart, and what was removed is not', async (under) => {
    if (under.reopen === undefined) return;
    const kept = await under.keys.generate('kept', 'rsa-2048');
    await under.keys.generate('gone', 'ec-p256');
    await under.keys.remove('gone');
    const again = await under.reopen();
    assert.deepEqual(
      (await again.list()).map(({ id }) => id),
      ['kept'],
    );
    const same = await again.get('kept');
    assert.deepEqual(same?.publicKey, kept.publicKey);
    await signs(same!);
  });
}

async function signs(key: Key): Promise<void> {
  const data = Buffer.from('to be signed');
  const { hash } = keyTypes[key.type];
  const publicKey = createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' });
  assert.ok(verify(hash, data, publicKey, await key.sign(data, 'der')));
  assert.ok(verify(hash, data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, await key.sign(data, 'raw')));
  assert.ok(!verify(hash, Buffer.from('something else'), publicKey, await key.sign(data, 'der')));
}
