import assert from 'node:assert/strict';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { Fault } from '../../../src/errors.ts';
import { clean, withoutSecrets } from '../../../src/log/redact.ts';

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const der = privateKey.export({ type: 'pkcs8', format: 'der' });
const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const sec1 = privateKey.export({ type: 'sec1', format: 'pem' }) as string;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
  type: 'pkcs1',
  format: 'pem',
}) as string;
const jwk = privateKey.export({ format: 'jwk' });
const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const jwt = `${part({ alg: 'ES256', kid: 'x', typ: 'JWT' })}.${part({ sub: 'spiffe://a/b' })}.${'A'.repeat(86)}`;

/** Any eight bytes in a row of a secret text are too many. */
function assertHidden(given: unknown, secret: string): void {
  const printed = JSON.stringify(clean(given));
  for (let at = 0; at + 24 <= secret.length; at += 8) {
    assert.equal(
      printed.includes(JSON.stringify(secret.slice(at, at + 24)).slice(1, -1)),
      false,
      printed.slice(0, 300),
    );
  }
}

const secrets: [string, string][] = [
  ['a PKCS#8 PEM', pem],
  ['a SEC1 PEM', sec1],
  ['a PKCS#1 PEM', rsa],
  ['half a PEM', pem.slice(0, 150)],
  ['PKCS#8 DER in base64', der.toString('base64')],
  ['PKCS#8 DER in base64url', der.toString('base64url')],
  ['a JWT', jwt],
  ['a JWT without a signature', jwt.split('.').slice(0, 2).join('.')],
  ['a JWE', `${part({ alg: 'dir', enc: 'A256GCM' })}..${'B'.repeat(16)}.${'C'.repeat(40)}.${'D'.repeat(22)}`],
];
for (const [what, secret] of secrets) {
  test(`${what} never passes: as a field, in a text, in an error, deep inside`, () => {
    assertHidden({ note: secret }, secret);
    assertHidden({ note: `could not read ${secret} from x` }, secret);
    assertHidden({ error: new Error(`bad ${secret}`) }, secret);
    assertHidden(
      { error: new Fault('input/invalid', 'bad', { detail: secret, hint: secret, cause: new Error(secret) }) },
      secret,
    );
    assertHidden({ a: { b: [{ c: secret }] } }, secret);
    assertHidden(secret, secret);
  });
}

test('a private JWK never passes, as an object or as text', () => {
  const secret = String(jwk.d);
  assertHidden({ authority: jwk }, secret);
  assertHidden({ text: JSON.stringify(jwk) }, secret);
});

test('tokens never pass under their names, whatever they look like', () => {
  const token = randomUUID();
  for (const name of [
    'token',
    'joinToken',
    'join_token',
    'JOIN-TOKEN',
    'password',
    'authorization',
    'privateKey',
    'payload',
    'jwt',
  ]) {
    assert.deepEqual(clean({ [name]: token }), { [name]: '[hidden]' });
  }
  for (const text of [
    `token=${token}`,
    `--join-token=${token}`,
    `{"token":"${token}"}`,
    `MUTUAL_JOIN_TOKEN=${token}`,
    `Bearer ${token}`,
  ]) {
    assertHidden({ text }, token);
  }
  assertHidden({ database: `postgres://user:${token}@host/db` }, token);
});

test('a selector of a container names its variable, not the value', () => {
  assert.deepEqual(clean({ selectors: ['docker:env:PASSWORD=hunter2', 'docker:label:a:b'] }), {
    selectors: ['docker:env:PASSWORD=[hidden]', 'docker:label:a:b'],
  });
});

test('bytes and live objects are named, not shown', () => {
  assert.deepEqual(
    clean({ bytes: der, key: privateKey, other: privateKey, url: new URL('https://x'), map: new Map([['a', 1]]) }),
    {
      bytes: `[${der.length} bytes]`,
      key: '[hidden]',
      other: '[PrivateKeyObject]',
      url: '[URL]',
      map: '[Map]',
    },
  );
});

test('what an operator needs passes unchanged', () => {
  const fields = {
    id: 'spiffe://example.org/spire/agent/x509pop/da39a3ee5e6b4b0d3255bfef95601890afd80709',
    entryId: randomUUID(),
    authority: 'da39a3ee5e6b4b0d3255bfef95601890afd80709',
    fingerprint: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    path: '/usr/lib/Multiarch/Mxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/program.with/some/more/of/it/bin',
    keyId: 'abcdefABCDEF0123456789abcdefABCD',
    serial: '182764918273649182736491827364918',
    url: 'https://example.org:8443/bundle?x=1',
    ttl: 3600,
    ok: true,
    none: null,
    selectors: ['unix:uid:1000', 'unix:user:alice'],
    text: 'token is not valid: it has expired',
    tokens: 3,
  };
  assert.deepEqual(clean(fields), fields);
});

test('a value cannot be used to fill the log', () => {
  const loop: Record<string, unknown> = {};
  loop.self = loop;
  const printed = JSON.stringify(clean({ long: 'x'.repeat(5_000_000), many: Array(100_000).fill(1), loop }));
  assert.ok(printed.length < 20_000, `${printed.length}`);
});

test('nothing that can be given makes it throw', () => {
  const odd = [
    undefined,
    Symbol('x'),
    () => 1,
    Number.NaN,
    1n,
    new Date(Number.NaN),
    Object.create(null),
    new Set([1]),
    new (class A {})(),
  ];
  assert.deepEqual(clean(odd), [null, '[symbol]', '[function]', 'NaN', '1', '[invalid date]', {}, [1], '[A]']);
});

test('a text is searched whenever something would be found in it', () => {
  const pieces = [
    ...secrets.map(([, secret]) => secret),
    ...[
      '-----BEGIN ',
      'PRIVATE KEY-----',
      'eyJ',
      'ewo',
      'eyIabcdef.',
      'M',
      'A'.repeat(55),
      'docker:env:',
      'X=',
      '"d"',
      ':',
    ],
    ...[
      '"',
      ' ',
      '@',
      '=',
      'Bearer ',
      'BASIC ',
      'https://',
      'user:',
      'secret9',
      'join-token',
      'Password',
      'passphrase:',
    ],
    ...['abc12345', '/', '_', '.', 'spiffe://example.org/w'],
  ];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 8 }), (parts) => {
      const text = parts.join('').slice(0, 8000);
      assert.equal(clean(text), withoutSecrets(text));
    }),
    { numRuns: 3000 },
  );
});
