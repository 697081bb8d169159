import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { pkcs11Keys } from '../../src/keys/pkcs11.ts';
import { systemRandom } from '../../src/run/random.ts';
import { peerPath } from '../../tools/peers.ts';
import { keyStoreSuite, signs } from '../suites/key-store.ts';
import { drivenClock } from '../support/clock.ts';
import { fault } from '../support/fault.ts';
import { keyPorts } from '../support/key-ports.ts';
import { openedStores, passHours } from '../support/key-stores.ts';
import { makePlace } from './support/place.ts';

const place = makePlace();
const library = peerPath('softhsm');
const label = 'mutual tests';
// biome-ignore lint/suspicious/noExplicitAny: the package's own types are beside the point here.
let pkcs11js: any;

before(async () => {
  const tokens = place.path('tokens', 'x').slice(0, -2);
  mkdirSync(tokens, { recursive: true });
  const conf = place.path('softhsm2.conf');
  writeFileSync(conf, `directories.tokendir = ${tokens}\nobjectstore.backend = file\nlog.level = ERROR\n`);
  // The library reads it in this process.
  process.env.SOFTHSM2_CONF = conf;
  const made = spawnSync('softhsm2-util', [
    '--init-token',
    '--free',
    '--label',
    label,
    '--pin',
    '1234',
    '--so-pin',
    '12345678',
  ]);
  assert.equal(made.status, 0, String(made.stderr));
  pkcs11js = (await import('pkcs11js')).default;
});
after(() => place.close());

function under(server = systemRandom.uuid()) {
  const clock = drivenClock();
  const opened = openedStores();
  const open = (name = server, pin = '1234') =>
    opened.keep(
      pkcs11Keys(
        { library, token: label, pin },
        { trustDomain: 'example.org', server: name },
        keyPorts({ pkcs11js }, clock),
      ),
    );
  return { clock, opened, open, server };
}

/** A session of somebody else in this process. */
function otherSession() {
  const cryptoki = new pkcs11js.PKCS11();
  cryptoki.load(library);
  const slot = cryptoki.C_GetSlotList(true).find((one: Buffer) => cryptoki.C_GetTokenInfo(one).label.trim() === label);
  return { cryptoki, slot, session: cryptoki.C_OpenSession(slot, 6) };
}
function objectsOf(server: string, { cryptoki, session }: ReturnType<typeof otherSession>): Buffer[] {
  cryptoki.C_FindObjectsInit(session, [{ type: pkcs11js.CKA_CLASS, value: pkcs11js.CKO_PRIVATE_KEY }]);
  const all: Buffer[] = cryptoki.C_FindObjects(session, 1000);
  cryptoki.C_FindObjectsFinal(session);
  return all.filter((object) => {
    const [found] = cryptoki.C_GetAttributeValue(session, object, [{ type: pkcs11js.CKA_LABEL }]);
    return String(found.value).startsWith(`mutual/example.org/${server}/`);
  });
}

keyStoreSuite('pkcs11 (a real SoftHSM)', { exportable: false }, async () => {
  const { opened, open, server } = under();
  return {
    keys: await open(),
    reopen: () => open(),
    other: () => open(`${server}-2`),
    async steal(id) {
      const other = otherSession();
      for (const object of objectsOf(server, other)) {
        const [found] = other.cryptoki.C_GetAttributeValue(other.session, object, [{ type: pkcs11js.CKA_LABEL }]);
        if (String(found.value).endsWith(`/${id}`)) other.cryptoki.C_DestroyObject(other.session, object);
      }
      other.cryptoki.C_CloseSession(other.session);
    },
    close: opened.close,
  };
});

describe('a real SoftHSM', () => {
  it('has keys made, listed, used and removed at once by two servers, and the process lives', async () => {
    const { opened, open, server } = under();
    const two = [await open(), await open(`${server}-2`)];
    const used = await Promise.all(two.map((keys) => keys.generate('used', 'ec-p256')));
    for (let round = 0; round < 5; round++) {
      await Promise.all(
        two.flatMap((keys, index) => [
          ...Array.from({ length: 4 }, (_, key) => keys.generate(`key-${key}`, 'ec-p256')),
          ...Array.from({ length: 4 }, () => signs(used[index]!)),
          ...Array.from({ length: 3 }, () => keys.list()),
        ]),
      );
      await Promise.all(two.map((keys) => keys.remove('key-0')));
    }
    for (const keys of two)
      assert.deepEqual((await keys.list()).map(({ id }) => id).sort(), ['key-1', 'key-2', 'key-3', 'used']);
    await opened.close();
  });

  it('gives out no private key, by any attribute', async () => {
    const { opened, open, server } = under();
    await (await open()).generate('a', 'ec-p256');
    const other = otherSession();
    const [object] = objectsOf(server, other);
    assert.throws(
      () => other.cryptoki.C_GetAttributeValue(other.session, object, [{ type: pkcs11js.CKA_VALUE }]),
      /CKR_ATTRIBUTE_SENSITIVE/,
    );
    other.cryptoki.C_CloseSession(other.session);
    await opened.close();
  });

  it('may lose every session and its login in between: the same keys go on signing', async () => {
    const { opened, open } = under();
    const key = await (await open()).generate('a', 'ec-p384');
    const { cryptoki, slot } = otherSession();
    for (let turn = 0; turn < 3; turn++) {
      cryptoki.C_CloseAllSessions(slot);
      await Promise.all(Array.from({ length: 10 }, () => signs(key)));
    }
    await opened.close();
  });

  it('may be taken from under us and started anew: the same keys go on signing', async () => {
    const { opened, open } = under();
    const key = await (await open()).generate('a', 'rsa-2048');
    otherSession().cryptoki.C_Finalize();
    await signs(key);
    await opened.close();
  });

  it('destroys a replaced key two days later', async () => {
    const { clock, opened, open, server } = under();
    const keys = await open();
    await keys.generate('a', 'ec-p256');
    const fresh = await keys.generate('a', 'ec-p256');
    await passHours(clock, 73, []);
    const other = otherSession();
    assert.equal(objectsOf(server, other).length, 1);
    other.cryptoki.C_CloseSession(other.session);
    await signs(fresh);
    await opened.close();
  });

  it('refuses a wrong PIN and another token in a sentence', async () => {
    const { opened, open } = under();
    otherSession().cryptoki.C_CloseAllSessions(otherSession().slot);
    await assert.rejects(
      open(undefined, '9999'),
      fault('config/invalid', /the PIN does not open the PKCS#11 token "mutual tests"/),
    );
    const elsewhere = pkcs11Keys(
      { library, token: 'none', pin: '1234' },
      { trustDomain: 'example.org', server: 'x' },
      keyPorts({ pkcs11js }),
    );
    await assert.rejects(elsewhere, fault('keys/unavailable', /the key store PKCS#11 token "none" is not there/));
    await opened.close();
  });
});
