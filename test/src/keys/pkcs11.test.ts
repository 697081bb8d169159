import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pkcs11Options } from '../../../src/keys/options.ts';
import { pkcs11Keys } from '../../../src/keys/pkcs11.ts';
import { keyStoreSuite, signs } from '../../suites/key-store.ts';
import { drivenClock } from '../../support/clock.ts';
import { fakeToken } from '../../support/fake-cryptoki.ts';
import { fault } from '../../support/fault.ts';
import { keyPorts } from '../../support/key-ports.ts';
import { openedStores, passHours } from '../../support/key-stores.ts';

function under(more: Partial<Pkcs11Options> = {}) {
  const clock = drivenClock();
  const token = fakeToken();
  const opened = openedStores();
  const ports = keyPorts({ pkcs11js: token.package }, clock);
  const options: Pkcs11Options = { library: '/fake/library.so', token: 'mutual', pin: '1234', ...more };
  const open = (server = 'one') => opened.keep(pkcs11Keys(options, { trustDomain: 'example.org', server }, ports));
  return { clock, token, opened, ports, open };
}

keyStoreSuite('pkcs11 (a fake token)', { exportable: false }, async () => {
  const { clock, token, opened, open } = under();
  return {
    keys: await open(),
    reopen: () => open(),
    other: () => open('two'),
    async down() {
      token.pull();
    },
    async up() {
      token.plugIn();
      await clock.advance(10_000);
    },
    async steal(id) {
      for (const [handle, { attributes }] of token.objects)
        if (String(attributes.get(3)).endsWith(`/${id}`)) token.objects.delete(handle);
    },
    close: opened.close,
  };
});

test('a wrong PIN is tried once and never again, so that the token is not locked', async () => {
  const { token, opened, open } = under({ pin: '9999' });
  await assert.rejects(
    open(),
    fault('config/invalid', /the PIN does not open the PKCS#11 token "mutual" \(CKR_PIN_INCORRECT\)/),
  );
  assert.deepEqual(token.logins, ['9999']);
  await opened.close();
});

test('a PIN that was changed while the server ran is tried once', async () => {
  const { clock, token, opened, open } = under();
  const key = await (await open()).generate('a', 'ec-p256');
  token.pin = '4321';
  token.pull();
  token.plugIn();
  for (let attempt = 0; attempt < 5; attempt++) {
    await assert.rejects(async () => key.sign(Buffer.from('x'), 'der'), fault('config/invalid', /PIN does not open/));
    await clock.advance(60_000);
  }
  assert.deepEqual(token.logins, ['1234', '1234']);
  await opened.close();
});

test('sessions are kept for the next signature, a few of them', async () => {
  const { token, opened, open } = under();
  const key = await (await open()).generate('a', 'ec-p256');
  await Promise.all(Array.from({ length: 30 }, () => key.sign(Buffer.from('x'), 'der')));
  assert.ok(token.openSessions <= 9, `${token.openSessions} sessions`);
  for (let turn = 0; turn < 20; turn++) await key.sign(Buffer.from('x'), 'der');
  assert.ok(token.openSessions <= 9);
  assert.equal(token.logins.length, 1);
  await opened.close();
  assert.equal(token.openSessions, 0);
});

for (const [manufacturer, fails] of [
  ['SoftHSM', 0],
  // That the stand-in notices: with any other library all goes on at once.
  ['A maker that is no better', 1],
] as const) {
  test(`beside a key being made in ${manufacturer}, ${fails ? 'everything' : 'nothing'} else is called`, async () => {
    const { token, opened, open } = under();
    token.manufacturer = manufacturer;
    const keys = await open();
    const key = await keys.generate('a', 'ec-p256');
    if (fails) token.manufacturer = 'SoftHSM';
    const all = await Promise.allSettled([
      keys.generate('b', 'ec-p256'),
      key.sign(Buffer.from('x'), 'der'),
      keys.list(),
      keys.generate('c', 'ec-p256'),
      keys.remove('a'),
      open('two'),
    ]);
    const failed = all.filter(({ status }) => status === 'rejected');
    if (fails) assert.notEqual(failed.length, 0);
    else assert.deepEqual(failed, []);
    await opened.close();
  });
}

test('a replaced key is destroyed two days later, on the token and whole', async () => {
  const { clock, token, opened, open } = under();
  const keys = await open();
  await keys.generate('a', 'ec-p256');
  const fresh = await keys.generate('a', 'ec-p384');
  assert.equal(token.objects.size, 4);
  await passHours(clock, 73, []);
  assert.equal(token.objects.size, 2);
  await signs(fresh);
  await opened.close();
});

for (const [what, more, code, message] of [
  [
    'a library that is not there',
    { library: '/nowhere.so' },
    'config/invalid',
    /library "\/nowhere\.so" cannot be loaded/,
  ],
  [
    'a token that is not there',
    { token: 'other' },
    'keys/unavailable',
    /the key store PKCS#11 token "other" is not there/,
  ],
  ['no PIN', { pin: undefined }, 'config/invalid', /no PIN of the token is given/],
  ['a PIN file that is not there', { pinFile: '/nowhere' }, 'config/invalid', /"\/nowhere", cannot be read/],
] as const) {
  test(`${what} is a sentence at the start`, async () => {
    const { opened, open } = under(more as Partial<Pkcs11Options>);
    await assert.rejects(open(), fault(code, message));
    await opened.close();
  });
}

test('without its package it says what to install', async () => {
  const options: Pkcs11Options = { library: 'x', token: 'y', pin: 'z' };
  const nothing = pkcs11Keys(options, { trustDomain: 'example.org', server: 'one' }, keyPorts());
  await assert.rejects(
    nothing,
    fault('config/invalid', /keys\.store pkcs11 needs the package pkcs11js, which is not installed/),
  );
});
