/** What every store of SVIDs keeps to, run for each of them. */
import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { readSettings } from '../../agent/stores/settings.ts';
import type { Place, Secret, SvidStore } from '../../agent/stores/svid-store.ts';
import { parseCertificate } from '../../src/crypto/certificate.ts';
import { pemDecode } from '../../src/crypto/pem.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { testAuthority } from '../support/ca.ts';
import { fault } from '../support/fault.ts';

/** What was read back from a store, PEM. */
export interface Found {
  readonly chain: string;
  readonly key: string;
  readonly bundle: string;
  readonly federated: Readonly<Record<string, string>>;
}

export interface StoreUnderTest {
  readonly store: SvidStore;
  readonly settings: readonly string[];
  /** Selectors of a place that no other test has. */
  selectors(): readonly string[];
  /** What lies there, read as a reader would; undefined when nothing does. */
  read(selectors: readonly string[]): Promise<Found | undefined>;
  /** Puts something there that is no agent's. */
  occupy(selectors: readonly string[]): Promise<void>;
  /** Whether what `occupy` put is still there, as it was. */
  isOccupied(selectors: readonly string[]): Promise<boolean>;
  /** Makes it fail, and lets it work again. */
  down(): Promise<void>;
  up(): Promise<void>;
  close(): Promise<void>;
}

/** Secrets of one workload, a new SVID each time. */
export function secrets(): () => Secret {
  const own = testAuthority({ now: Date.now() });
  const other = testAuthority({ trustDomain: 'other.org', now: Date.now() });
  return () => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const { id, chain } = own.issue({ publicKey: publicKey.export({ type: 'spki', format: 'der' }) });
    return {
      id,
      chain,
      pkcs8: privateKey.export({ type: 'pkcs8', format: 'der' }),
      bundle: own.bundle(),
      federated: [other.bundle()],
    };
  };
}

function belongsTo(found: Found | undefined, secret: Secret): void {
  assert.ok(found !== undefined);
  assert.deepEqual(pemDecode(found.chain, 'CERTIFICATE'), secret.chain);
  assert.deepEqual(
    pemDecode(found.bundle, 'CERTIFICATE'),
    secret.bundle.x509Authorities.map(({ certificate }) => certificate),
  );
  assert.deepEqual(Object.keys(found.federated), ['other.org']);
  assert.equal(pemDecode(found.federated['other.org']!, 'CERTIFICATE').length, 1);
  const spki = createPublicKey(createPrivateKey(found.key)).export({ type: 'spki', format: 'der' });
  assert.deepEqual(parseCertificate(pemDecode(found.chain, 'CERTIFICATE')[0]!).spki, spki);
}

export function svidStoreSuite(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`store ${name}`, () => {
    let under: StoreUnderTest;
    let make: () => Secret;
    const { signal } = new AbortController();
    before(async () => {
      under = await open();
      make = secrets();
    });
    after(() => under?.close());
    const placeOf = (selectors: readonly string[]): Place =>
      under.store.place(readSettings(selectors.map(parseSelector), under.settings));

    test('a secret that is put can be read, whole, and the next one is there in its place', async () => {
      const selectors = under.selectors();
      for (let turn = 0; turn < 4; turn++) {
        const secret = make();
        await under.store.put(placeOf(selectors), secret, signal);
        belongsTo(await under.read(selectors), secret);
        await under.store.put(placeOf(selectors), secret, signal);
        belongsTo(await under.read(selectors), secret);
      }
    });

    test('what is removed is gone, once more is no fault, and it can be put again', async () => {
      const selectors = under.selectors();
      await under.store.remove(placeOf(selectors), signal);
      await under.store.put(placeOf(selectors), make(), signal);
      await under.store.remove(placeOf(selectors), signal);
      assert.equal(await under.read(selectors), undefined);
      await under.store.remove(placeOf(selectors), signal);
      const again = make();
      await under.store.put(placeOf(selectors), again, signal);
      belongsTo(await under.read(selectors), again);
    });

    test('what no agent put is neither overwritten nor removed', async () => {
      const selectors = under.selectors();
      await under.occupy(selectors);
      await assert.rejects(under.store.put(placeOf(selectors), make(), signal), fault('store/foreign'));
      await assert.rejects(under.store.remove(placeOf(selectors), signal), fault('store/foreign'));
      assert.ok(await under.isOccupied(selectors));
    });

    test('two places are two, and what lies in one does not change with the other', async () => {
      const [one, other] = [under.selectors(), under.selectors()];
      assert.notEqual(placeOf(one).key, placeOf(other).key);
      const [first, second] = [make(), make()];
      await under.store.put(placeOf(one), first, signal);
      await under.store.put(placeOf(other), second, signal);
      await under.store.remove(placeOf(other), signal);
      belongsTo(await under.read(one), first);
    });

    test('a store that fails says so without the key, and what was there stays until it works', async () => {
      const selectors = under.selectors();
      const [first, second] = [make(), make()];
      await under.store.put(placeOf(selectors), first, signal);
      await under.down();
      try {
        await assert.rejects(
          under.store.put(placeOf(selectors), second, signal),
          (error: Error & { detail?: string }) => {
            fault('store/unavailable')(error);
            const told = `${error.message} ${error.detail} ${error.stack}`;
            assert.ok(!told.includes('PRIVATE KEY') && !told.includes(second.pkcs8.toString('base64').slice(0, 60)));
            return true;
          },
        );
      } finally {
        await under.up();
      }
      belongsTo(await under.read(selectors), first);
      await under.store.put(placeOf(selectors), second, signal);
      belongsTo(await under.read(selectors), second);
    });
  });
}
