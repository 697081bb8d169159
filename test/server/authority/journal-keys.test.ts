import assert from 'node:assert/strict';
import { test } from 'node:test';
import { journalKeys } from '../../../server/authority/journal-keys.ts';
import { openStore } from '../../../server/store/open.ts';
import type { Journal } from '../../../server/store/store.ts';
import { passphraseWrapper, sealer } from '../../../src/keys/seal.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { fault } from '../../support/fault.ts';

const cheap = { n: 1024, r: 8, p: 1 };
const seal = (passphrase = 'a passphrase') =>
  sealer(passphraseWrapper(passphrase, systemRandom, { cost: cheap }), systemRandom);

keyStoreSuite('database, sealed', { exportable: true }, async () => {
  const store = await openStore({ url: 'sqlite::memory:' });
  return {
    keys: await journalKeys(store.journal, 'keys@one', seal()),
    reopen: () => journalKeys(store.journal, 'keys@one', seal()),
    other: () => journalKeys(store.journal, 'keys@two', seal()),
    close: () => store.close(),
  };
});

async function inJournal(work: (journal: Journal) => Promise<void>): Promise<void> {
  const store = await openStore({ url: 'sqlite::memory:' });
  try {
    await work(store.journal);
  } finally {
    await store.close();
  }
}

test("servers on one document see each other's keys at once, and none is lost when all make some at the same time", () =>
  inJournal(async (journal) => {
    const servers = await Promise.all([1, 2, 3].map(() => journalKeys(journal, 'keys@shared', seal())));
    await Promise.all(
      servers.flatMap((keys, server) => [0, 1, 2].map((key) => keys.generate(`${server}-${key}`, 'ec-p256'))),
    );
    for (const keys of servers) assert.equal((await keys.list()).length, 9);
    await servers[0]!.remove('2-2');
    assert.equal(await servers[1]!.get('2-2'), undefined);
    await signs((await servers[2]!.get('0-1'))!);
  }));

test('the database holds no key in plain, and another passphrase opens nothing', () =>
  inJournal(async (journal) => {
    const keys = await journalKeys(journal, 'keys@shared', seal());
    const secret = (await keys.generate('a', 'ec-p256')).exportPkcs8!();
    const { text } = (await journal.get('keys@shared'))!;
    assert.ok(!text.includes(secret.toString('base64').slice(0, 40)));
    assert.ok(!Buffer.from(JSON.parse(text).sealed.data, 'base64').includes(secret.subarray(36, 68)));
    await assert.rejects(
      journalKeys(journal, 'keys@shared', seal('another')),
      fault('keys/sealed', /the passphrase does not open "keys@shared in the database"/),
    );
  }));

test('what somebody else put there is refused: plain keys, other text, a part that was changed', () =>
  inJournal(async (journal) => {
    const keys = await journalKeys(journal, 'keys@shared', seal());
    await keys.generate('a', 'ec-p256');
    const { version, text } = (await journal.get('keys@shared'))!;
    const changed = JSON.parse(text);
    changed.sealed.data = `AAAA${changed.sealed.data.slice(4)}`;
    for (const [index, [wrong, message]] of (
      [
        ['{"keys":{}}', /is not sealed, as it was written/],
        ['', /is not sealed/],
        [JSON.stringify(changed), /it was changed since it was written/],
      ] as const
    ).entries()) {
      assert.ok(await journal.put('keys@shared', wrong, version + index));
      await assert.rejects(keys.get('a'), fault('data/corrupt', message));
      await assert.rejects(keys.generate('b', 'ec-p256'), fault('data/corrupt', message));
    }
  }));
