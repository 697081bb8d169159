/** What every key store must do, run once for each. */
import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';
import { test } from 'node:test';
import { describeSpki, type KeyType, keyTypeOfShape, keyTypes } from '../../src/crypto/algorithms.ts';
import { Fault } from '../../src/errors.ts';
import type { Key, KeyStore } from '../../src/keys/key-store.ts';

export interface KeyStoreUnderTest {
  keys: KeyStore;
  /** Opens the same store anew, as a restart would; absent where nothing outlives the process. */
  reopen?(): Promise<KeyStore>;
  /** Opens the same place as another server does, which has keys of its own there; absent where nobody shares it. */
  other?(): Promise<KeyStore>;
  /** Takes the store away, and brings it back with some time gone by; absent where it cannot be away. */
  down?(): Promise<void>;
  up?(): Promise<void>;
  /** Has a key deleted behind our back; absent where nobody can. */
  steal?(id: string): Promise<void>;
  close(): Promise<void>;
}

export interface KeyStoreTraits {
  /** Whether private keys may leave. */
  readonly exportable: boolean;
  /** Without those that the store itself takes too long to make. */
  readonly types?: readonly KeyType[];
  /** Least and most bytes that it signs rightly; a stand-in of others may have faults of its own. */
  readonly data?: readonly [least: number, most: number];
}

const allTypes: readonly KeyType[] = ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096'];

/** @param make an empty store, with its own place */
export function keyStoreSuite(name: string, traits: KeyStoreTraits, make: () => Promise<KeyStoreUnderTest>): void {
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

  for (const type of traits.types ?? allTypes) {
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
    assert.deepEqual(ids(await keys.list()), ['JWT-Signer-A', '__proto__', 'a b/c', 'x509-CA-B']);
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
    assert.deepEqual(ids(await keys.list()), ['b']);
    await signs((await keys.get('b'))!);
  });

  claim('many changes at once all count', async ({ keys }) => {
    await Promise.all(Array.from({ length: 12 }, (_, index) => keys.generate(`key-${index}`, 'ec-p256')));
    await Promise.all(Array.from({ length: 6 }, (_, index) => keys.remove(`key-${index}`)));
    assert.deepEqual(ids(await keys.list()).sort(), Array.from({ length: 6 }, (_, index) => `key-${index + 6}`).sort());
  });

  claim(
    'two that make the same name at once both get keys that sign, and one of them has the name',
    async ({ keys }) => {
      const made = await Promise.all([keys.generate('a', 'ec-p256'), keys.generate('a', 'ec-p256')]);
      for (const key of made) await signs(key);
      const [named, ...more] = await keys.list();
      assert.equal(more.length, 0);
      assert.ok(made.some(({ publicKey }) => publicKey.equals(named!.publicKey)));
      await signs(named!);
    },
  );

  claim('many signatures at once are each right, of much data and of none', async ({ keys }) => {
    const key = await keys.generate('a', 'ec-p256');
    const publicKey = createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' });
    const [least, most] = traits.data ?? [0, 16_000];
    const inputs = Array.from({ length: 41 }, (_, index) =>
      Buffer.alloc(least + Math.floor(((most - least) * index) / 40), index),
    );
    const signatures = await Promise.all(inputs.map((data) => key.sign(data, 'der')));
    inputs.forEach((data, index) => {
      assert.ok(verify('sha256', data, publicKey, signatures[index]!), `input of ${data.length} bytes`);
    });
  });

  if (traits.exportable) {
    claim('a key leaves its store as PKCS#8 of the same key', async ({ keys }) => {
      const key = await keys.generate('a', 'ec-p256');
      const again = createPublicKey({ key: key.exportPkcs8!(), format: 'der', type: 'pkcs8' } as never);
      assert.deepEqual(again.export({ format: 'der', type: 'spki' }), key.publicKey);
    });
  } else {
    claim('a key cannot leave its store', async ({ keys }) => {
      assert.equal((await keys.generate('a', 'ec-p256')).exportPkcs8, undefined);
    });
  }

  claim('what was made is there after a restart, and what was removed or replaced is not', async (under) => {
    if (under.reopen === undefined) return;
    const kept = await under.keys.generate('kept', 'rsa-2048');
    await under.keys.generate('gone', 'ec-p256');
    await under.keys.remove('gone');
    await under.keys.generate('again', 'ec-p256');
    const fresh = await under.keys.generate('again', 'ec-p384');
    const again = await under.reopen();
    assert.deepEqual(ids(await again.list()), ['again', 'kept']);
    const same = await again.get('kept');
    assert.deepEqual(same?.publicKey, kept.publicKey);
    assert.deepEqual((await again.get('again'))?.publicKey, fresh.publicKey);
    await signs(same!);
    await signs((await again.get('again'))!);
  });

  claim('the keys of another server in the same place are neither seen nor touched', async (under) => {
    if (under.other === undefined) return;
    const other = await under.other();
    const theirs = await other.generate('a', 'ec-p256');
    assert.deepEqual(await under.keys.list(), []);
    assert.equal(await under.keys.get('a'), undefined);
    const ours = await under.keys.generate('a', 'ec-p256');
    await under.keys.remove('a');
    assert.deepEqual((await other.get('a'))?.publicKey, theirs.publicKey);
    assert.notDeepEqual(ours.publicKey, theirs.publicKey);
    await signs(theirs);
  });

  claim('while it is away everything is refused in a sentence; when it is back the same keys sign', async (under) => {
    if (under.down === undefined || under.up === undefined) return;
    const { keys } = under;
    const key = await keys.generate('a', 'ec-p256');
    await keys.check?.();
    await under.down();
    await refusedAsAway(async () => key.sign(Buffer.from('x'), 'der'));
    await refusedAsAway(() => keys.generate('b', 'ec-p256'));
    await refusedAsAway(() => keys.list());
    await refusedAsAway(() => keys.get('never-seen'));
    await refusedAsAway(() => keys.remove('a'));
    await refusedAsAway(async () => keys.check?.());
    await under.up();
    await signs(key);
    await keys.check?.();
    assert.deepEqual(ids(await keys.list()), ['a']);
  });

  claim('a key that was deleted behind our back is missed by name, and no other is', async (under) => {
    if (under.steal === undefined) return;
    const { keys } = under;
    const lost = await keys.generate('lost', 'ec-p256');
    const kept = await keys.generate('kept', 'ec-p256');
    await under.steal('lost');
    await assert.rejects(
      async () => lost.sign(Buffer.from('x'), 'der'),
      (error: unknown) => {
        assert.ok(error instanceof Fault);
        assert.equal(error.code, 'keys/lost', `${error.message} ${error.detail}`);
        assert.match(error.message, /^key "lost" is no longer in the key store /);
        assert.ok(error.hint);
        return true;
      },
    );
    assert.equal(await keys.get('lost'), undefined);
    assert.deepEqual(ids(await keys.list()), ['kept']);
    await signs(kept);
    await signs(await keys.generate('lost', 'ec-p256'));
  });
}

const ids = (keys: readonly Key[]): string[] => keys.map(({ id }) => id);

async function refusedAsAway(work: () => Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof Fault, String(error));
    assert.equal(error.code, 'keys/unavailable', `${error.message} ${error.detail}`);
    assert.match(error.message, /^the key store .+ (cannot be|does not|failed|is )/);
    assert.ok(error.hint);
    return true;
  });
}

export async function signs(key: Key): Promise<void> {
  const data = Buffer.from('to be signed');
  const { hash } = keyTypes[key.type];
  const publicKey = createPublicKey({ key: key.publicKey, format: 'der', type: 'spki' });
  assert.ok(verify(hash, data, publicKey, await key.sign(data, 'der')));
  assert.ok(verify(hash, data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, await key.sign(data, 'raw')));
  assert.ok(!verify(hash, Buffer.from('something else'), publicKey, await key.sign(data, 'der')));
}
