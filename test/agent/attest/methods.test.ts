import assert from 'node:assert/strict';
import { constants, createHash, createPublicKey, generateKeyPairSync, type KeyObject, verify } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { chooseMethod } from '../../../agent/attest/methods.ts';
import type { AgentOptions } from '../../../agent/config.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import type { Fault } from '../../../src/errors.ts';
import { testAuthority } from '../../support/ca.ts';
import { middling } from '../support/random.ts';

const now = Date.UTC(2030, 0, 1);
const choose = (options: object) => chooseMethod({ nodeAttestor: {}, ...options } as AgentOptions, middling());

function filesOf(t: TestContext, files: Record<string, string>): (name: string) => string {
  const directory = mkdtempSync(join(tmpdir(), 'mu-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return (name) => join(directory, name);
}

function identity(key: { publicKey: KeyObject; privateKey: KeyObject }, format: 'pkcs8' | 'pkcs1' | 'sec1' = 'pkcs8') {
  const ca = testAuthority({ now }).intermediate();
  const issued = ca.issue({ publicKey: key.publicKey.export({ type: 'spki', format: 'der' }) });
  const [leaf, ...rest] = issued.chain.map((der) => pemEncode('CERTIFICATE', der));
  return {
    leaf: leaf!,
    rest: rest.join(''),
    key: key.privateKey.export({ type: format as 'pkcs8', format: 'pem' }) as string,
    chain: issued.chain,
  };
}

test('no method configured is undefined; two are refused', () => {
  assert.equal(choose({}), undefined);
  assert.throws(
    () => choose({ joinToken: 'x', nodeAttestor: { x509pop: {} } }),
    (fault: Fault) => /join_token, x509pop/.test(fault.message),
  );
});

test('join_token sends the bytes of the token, from the option or the file', async (t) => {
  const path = filesOf(t, { token: '  from-file\n' });
  for (const [options, expected] of [
    [{ joinToken: 'given' }, 'given'],
    [{ joinTokenFile: path('token') }, 'from-file'],
  ] as const) {
    const attempt = await choose(options)!.begin();
    assert.deepEqual([attempt.data.type, attempt.data.payload.toString()], ['join_token', expected]);
    assert.throws(() => attempt.answer(Buffer.from('x')), /challenge for a join token/);
  }
});

for (const [name, text] of [
  ['empty', ' \n'],
  ['of two tokens', 'one two'],
  ['too long', 'x'.repeat(2000)],
] as const) {
  test(`a join token file that is ${name} is refused`, async (t) => {
    const path = filesOf(t, { token: text })('token');
    await assert.rejects(
      choose({ joinTokenFile: path })!.begin(),
      (fault: Fault) => fault.message.includes(path) && !fault.message.includes('one two'),
    );
  });
}

test('a join token file that does not exist is refused', async () => {
  await assert.rejects(choose({ joinTokenFile: '/nowhere/t' })!.begin(), /"\/nowhere\/t" does not exist/);
});

const challengeNonce = Buffer.alloc(32, 7);
const signed = (answer: any) => Buffer.concat([challengeNonce, Buffer.from(answer.nonce, 'base64')]);

for (const [curve, format] of [
  ['P-256', 'pkcs8'],
  ['P-256', 'sec1'],
  ['P-384', 'pkcs8'],
] as const) {
  test(`x509pop proves an ECDSA key (${curve}, ${format}) over both nonces, r and s apart`, async (t) => {
    const pair = generateKeyPairSync('ec', { namedCurve: curve });
    const id = identity(pair, format);
    const path = filesOf(t, { key: id.key, cert: id.leaf, more: id.rest });
    const method = choose({
      nodeAttestor: {
        x509pop: { privateKeyPath: path('key'), certificatePath: path('cert'), intermediatesPath: path('more') },
      },
    })!;
    const attempt = await method.begin();
    assert.equal(attempt.data.type, 'x509pop');
    assert.deepEqual(JSON.parse(attempt.data.payload.toString()), {
      certificates: id.chain.map((der) => der.toString('base64')),
    });
    const challenge = Buffer.from(JSON.stringify({ ecdsa_signature: { nonce: challengeNonce.toString('base64') } }));
    const { ecdsa_signature: answer } = JSON.parse((await attempt.answer(challenge)).toString());
    assert.equal(Buffer.from(answer.nonce, 'base64').length, 32);
    const half = curve === 'P-256' ? 32 : 48;
    const signature = Buffer.concat([answer.r, answer.s].map((part) => Buffer.from(part, 'base64')));
    assert.equal(signature.length, 2 * half);
    assert.ok(verify('sha256', signed(answer), { key: pair.publicKey, dsaEncoding: 'ieee-p1363' }, signature));
    // A nonce of ours for each proof: the same challenge is never signed the same.
    assert.notEqual(JSON.parse((await attempt.answer(challenge)).toString()).ecdsa_signature.nonce, answer.nonce);
  });
}

test('x509pop proves an RSA key with PSS over both nonces', async (t) => {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const id = identity(pair, 'pkcs1');
  // The whole chain in one file.
  const path = filesOf(t, { key: id.key, cert: id.leaf + id.rest });
  const attempt = await choose({
    nodeAttestor: { x509pop: { privateKeyPath: path('key'), certificatePath: path('cert') } },
  })!.begin();
  assert.equal(JSON.parse(attempt.data.payload.toString()).certificates.length, 2);
  const challenge = Buffer.from(JSON.stringify({ rsa_signature: { nonce: challengeNonce.toString('base64') } }));
  const { rsa_signature: answer } = JSON.parse((await attempt.answer(challenge)).toString());
  const padding = constants.RSA_PKCS1_PSS_PADDING;
  assert.ok(
    verify(
      'sha256',
      signed(answer),
      { key: pair.publicKey, padding, saltLength: constants.RSA_PSS_SALTLEN_AUTO },
      Buffer.from(answer.signature, 'base64'),
    ),
  );
  assert.equal(createHash('sha256').update(signed(answer)).digest().length, 32);
});

for (const [name, challenge] of [
  ['no JSON', 'x'],
  ['the other kind', JSON.stringify({ rsa_signature: { nonce: challengeNonce.toString('base64') } })],
  ['a short nonce', JSON.stringify({ ecdsa_signature: { nonce: 'AAAA' } })],
  [
    'a nonce as long as a document',
    JSON.stringify({ ecdsa_signature: { nonce: Buffer.alloc(64).toString('base64') } }),
  ],
] as const) {
  test(`x509pop signs nothing for a challenge with ${name}`, async (t) => {
    const id = identity(generateKeyPairSync('ec', { namedCurve: 'P-256' }));
    const path = filesOf(t, { key: id.key, cert: id.leaf });
    const attempt = await choose({
      nodeAttestor: { x509pop: { privateKeyPath: path('key'), certificatePath: path('cert') } },
    })!.begin();
    assert.throws(
      () => attempt.answer(Buffer.from(challenge)),
      (fault: Fault) => fault.code === 'peer/unavailable',
    );
  });
}

test('x509pop reads its files anew each time, and refuses a key that is not the certificate’s', async (t) => {
  const one = identity(generateKeyPairSync('ec', { namedCurve: 'P-256' }));
  const two = identity(generateKeyPairSync('ec', { namedCurve: 'P-256' }));
  const path = filesOf(t, { key: one.key, cert: one.leaf });
  const method = choose({ nodeAttestor: { x509pop: { privateKeyPath: path('key'), certificatePath: path('cert') } } })!;
  await method.begin();
  writeFileSync(path('cert'), two.leaf);
  await assert.rejects(method.begin(), /is not the key of certificate/);
  writeFileSync(path('key'), two.key);
  const { payload } = (await method.begin()).data;
  assert.equal(JSON.parse(payload.toString()).certificates[0], two.chain[0]!.toString('base64'));
  assert.ok(createPublicKey(two.key));
  rmSync(path('key'));
  await assert.rejects(method.begin(), /private key file .* does not exist/);
});
