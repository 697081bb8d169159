/** x509pop: a node proves a key of a PKI that the server trusts; every way to cheat is a row. */
import assert from 'node:assert/strict';
import { constants, createHash, createPrivateKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type X509PopOptions, x509Pop } from '../../../server/attest/x509-pop.ts';
import { KeyUsage } from '../../../src/crypto/certificate.ts';
import { name } from '../../../src/crypto/certificate-writer.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import { Fault } from '../../../src/errors.ts';
import { systemRandom } from '../../../src/run/random.ts';
import { type CertificateWishes, type IssuedSvid, testAuthority } from '../../support/ca.ts';
import { attestWith, refusalOf, td, testServer } from '../../support/server.ts';

const now = Date.UTC(2030, 0, 1);
const root = testAuthority({ trustDomain: 'pki.example', now });
const wishes: CertificateWishes = { uris: [], subject: name([['CN', 'node-1']]), serial: Buffer.from('0a1b2c', 'hex') };
const keyOf = ({ key }: IssuedSvid): KeyObject =>
  createPrivateKey({ key: key!.exportPkcs8(), format: 'der', type: 'pkcs8' });
const payloadOf = (...chain: Buffer[]) =>
  Buffer.from(JSON.stringify({ certificates: chain.map((der) => der.toString('base64')) }));
const sha1 = (der: Buffer) => createHash('sha1').update(der).digest('hex');

interface Answer {
  key: KeyObject;
  /** Changes the response before it is sent. */
  change?: (response: Record<string, string>) => object;
  /** Signs other nonces than it says. */
  theirs?: Buffer;
  as?: 'rsa_signature' | 'ecdsa_signature';
}

/** The agent's side of the challenge. */
function answer(challenge: Buffer, { key, change = (response) => response, theirs, as }: Answer): Buffer {
  const asked = JSON.parse(challenge.toString());
  const kind = as ?? (Object.keys(asked)[0] as 'rsa_signature' | 'ecdsa_signature');
  const nonce = systemRandom.bytes(32);
  const signed = Buffer.concat([
    Buffer.from(Object.values<{ nonce: string }>(asked)[0]!.nonce, 'base64'),
    theirs ?? nonce,
  ]);
  const base64 = (bytes: Buffer) => bytes.toString('base64');
  if (key.asymmetricKeyType === 'rsa') {
    const signature = sign('sha256', signed, {
      key,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: constants.RSA_PSS_SALTLEN_MAX_SIGN,
    });
    return Buffer.from(JSON.stringify({ [kind]: change({ nonce: base64(nonce), signature: base64(signature) }) }));
  }
  const raw = sign('sha256', signed, { key, dsaEncoding: 'ieee-p1363' });
  const half = raw.length / 2;
  const trimmed = (bytes: Buffer) => bytes.subarray(bytes.findIndex((byte) => byte !== 0));
  return Buffer.from(
    JSON.stringify({
      [kind]: change({
        nonce: base64(nonce),
        r: base64(trimmed(raw.subarray(0, half))),
        s: base64(trimmed(raw.subarray(half))),
      }),
    }),
  );
}

async function attestor(options: Partial<X509PopOptions> = {}, at = now) {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  try {
    const path = join(dir, 'roots.pem');
    await writeFile(path, pemEncode('CERTIFICATE', root.der));
    const all: X509PopOptions = {
      mode: 'external_pki',
      caBundlePaths: [path],
      spiffePrefix: '/spire-exchange',
      maxIntermediates: 4,
      maxRsaKeySize: 8192,
      ...options,
    };
    return await x509Pop(all, {
      trustDomain: td,
      store: {} as never,
      clock: { now: () => at, after: () => () => {} },
      random: systemRandom,
    });
  } finally {
    await rm(dir, { recursive: true });
  }
}

test('a node is named by the fingerprint of its certificate, and described by subject, serial number, authorities and names', async () => {
  const below = root.intermediate();
  const svid = below.issue({ ...wishes, uris: ['x509pop://pki.example/rack/a-7', 'https://other'] });
  const attest = await attestor();
  const { id, selectors, canReattest } = await attest(payloadOf(...svid.chain), async (challenge) =>
    answer(challenge, { key: keyOf(svid) }),
  );
  assert.equal(id, `spiffe://example.org/spire/agent/x509pop/${sha1(svid.der)}`);
  assert.deepEqual(
    [...selectors].sort(),
    [
      `x509pop:ca:fingerprint:${sha1(below.der)}`,
      `x509pop:ca:fingerprint:${sha1(root.der)}`,
      'x509pop:san:rack:a-7',
      'x509pop:serialnumber:0a1b2c',
      'x509pop:subject:cn:node-1',
    ].sort(),
  );
  assert.equal(canReattest, true);
});

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`a key of type ${keyType} proves itself, a hundred times for all lengths of r and s`, async () => {
    const svid = root.issue({ ...wishes, keyType });
    const key = keyOf(svid);
    const attest = await attestor();
    for (let round = 0; round < (keyType === 'rsa-2048' ? 2 : 100); round++)
      await attest(payloadOf(svid.der), async (challenge) => answer(challenge, { key }));
  });
}

const good = root.issue(wishes);
const other = root.issue(wishes);
const key = keyOf(good);
const chainOf = (length: number): Buffer[] => {
  let authority = root;
  for (let depth = 0; depth < length; depth++) authority = authority.intermediate();
  return [...authority.issue(wishes).chain];
};
const rsa = (bits: number): Buffer =>
  generateKeyPairSync('rsa', { modulusLength: bits }).publicKey.export({ format: 'der', type: 'spki' });
/** An RSA key of any size without the minutes it takes to find primes: only its size is looked at. */
const fakeRsa = (bits: number): Buffer => {
  const small = rsa(2048);
  const modulus = Buffer.alloc(bits / 8 + 1, 0xab);
  modulus[0] = 0;
  const der = (tag: number, ...parts: Buffer[]): Buffer => {
    const content = Buffer.concat(parts);
    return Buffer.concat([Buffer.of(tag, 0x82, content.length >> 8, content.length & 0xff), content]);
  };
  const algorithm = small.subarray(4, 19);
  return der(0x30, algorithm, der(0x03, Buffer.of(0), der(0x30, der(0x02, modulus), Buffer.from('0203010001', 'hex'))));
};

const cheats: Record<
  string,
  { payload?: Buffer; answer?: Partial<Answer> | ((challenge: Buffer) => Buffer); says: RegExp }
> = {
  'no JSON': { payload: Buffer.from('{'), says: /not a JSON object/ },
  'JSON that is no object': { payload: Buffer.from('7'), says: /not a JSON object/ },
  'no certificates': { payload: Buffer.from('{}'), says: /no certificate/ },
  'an empty list': { payload: payloadOf(), says: /no certificate/ },
  'a certificate that is no text': { payload: Buffer.from('{"certificates":[{}]}'), says: /base64 strings/ },
  'bytes that are no certificate': { payload: payloadOf(Buffer.from('no certificate')), says: /certificate/ },
  'something after the certificate': {
    payload: payloadOf(Buffer.concat([good.der, Buffer.of(0)])),
    says: /certificate/,
  },
  'a payload of 300 KB': { payload: Buffer.alloc(300_000, 0x20), says: /more than 262144/ },
  'a wrong root': {
    payload: payloadOf(...testAuthority({ trustDomain: 'pki.example', now }).issue(wishes).chain),
    says: /does not chain|not valid/,
  },
  'the wrong root sent along': {
    payload: (() => {
      const wrong = testAuthority({ trustDomain: 'pki.example', now });
      return payloadOf(wrong.issue(wishes).der, wrong.der);
    })(),
    says: /does not chain|not valid/,
  },
  'an intermediate that is no CA': {
    payload: (() => {
      const leaf = root.intermediate({ ca: false });
      return payloadOf(...leaf.issue(wishes).chain);
    })(),
    says: /not a certificate authority/,
  },
  'an intermediate missing': { payload: payloadOf(root.intermediate().issue(wishes).der), says: /does not chain/ },
  'five intermediates where four are allowed': {
    payload: payloadOf(...chainOf(5)),
    says: /5 intermediate certificates are more than the 4/,
  },
  'an expired certificate': {
    payload: payloadOf(root.issue({ ...wishes, notBefore: now - 20_000, notAfter: now - 10_000 }).der),
    says: /expired/,
  },
  'one that is not valid yet': {
    payload: payloadOf(root.issue({ ...wishes, notBefore: now + 10_000 }).der),
    says: /not valid before/,
  },
  'no digitalSignature': {
    payload: payloadOf(root.issue({ ...wishes, keyUsage: KeyUsage.keyEncipherment }).der),
    says: /not intended for digital signature/,
  },
  'no key usage at all': {
    payload: payloadOf(root.issue({ ...wishes, keyUsage: null }).der),
    says: /not intended for digital signature/,
  },
  'an RSA key of 16384 bits': {
    payload: payloadOf(root.issue({ ...wishes, publicKey: fakeRsa(16384) }).der),
    says: /16384 bits/,
  },
  'an Ed25519 key': {
    payload: payloadOf(
      root.issue({
        ...wishes,
        publicKey: generateKeyPairSync('ed25519').publicKey.export({ format: 'der', type: 'spki' }),
      }).der,
    ),
    says: /unsupported public key type|key/,
  },
  'the signature of another key': { answer: { key: keyOf(other) }, says: /verification failed/ },
  'a nonce that was not signed': { answer: { theirs: Buffer.alloc(32, 7) }, says: /verification failed/ },
  'a short nonce': {
    answer: { change: (response) => ({ ...response, nonce: Buffer.alloc(31).toString('base64') }) },
    says: /verification failed/,
  },
  'no nonce': { answer: { change: ({ nonce: _, ...rest }) => rest }, says: /verification failed/ },
  'r too long': {
    answer: { change: (response) => ({ ...response, r: Buffer.alloc(33, 1).toString('base64') }) },
    says: /verification failed/,
  },
  'r and s zero': { answer: { change: (response) => ({ ...response, r: '', s: '' }) }, says: /verification failed/ },
  'r and s that are no text': {
    answer: { change: (response) => ({ ...response, r: {}, s: 7 }) as never },
    says: /verification failed/,
  },
  'the response of the other kind of key': { answer: { as: 'rsa_signature' }, says: /verification failed/ },
  'null for a response': { answer: () => Buffer.from('{"ecdsa_signature":null}'), says: /verification failed/ },
  'a response that is no JSON': { answer: () => Buffer.from('no'), says: /not a JSON object/ },
  'the challenge sent back': { answer: (challenge) => challenge, says: /verification failed/ },
  'a response of 300 KB': { answer: () => Buffer.alloc(300_000, 0x20), says: /verification failed/ },
};
for (const [what, cheat] of Object.entries(cheats)) {
  test(`refuses ${what}`, async () => {
    const attest = await attestor();
    let challenged = false;
    const outcome = attest(cheat.payload ?? payloadOf(good.der), async (challenge) => {
      challenged = true;
      return typeof cheat.answer === 'function' ? cheat.answer(challenge) : answer(challenge, { key, ...cheat.answer });
    });
    const fault = await refusalOf(outcome);
    assert.match(fault.message, cheat.says);
    assert.equal(challenged, cheat.answer !== undefined, 'what is wrong with the chain is found before any challenge');
  });
}

test('an answer to another challenge, and one given twice, are refused', async () => {
  const attest = await attestor();
  let kept: Buffer = Buffer.alloc(0);
  await attest(payloadOf(good.der), async (challenge) => {
    kept = answer(challenge, { key });
    return kept;
  });
  await assert.rejects(
    attest(payloadOf(good.der), async () => kept),
    /verification failed/,
  );
});

test('SPIRE 1.14.2 x509pop: a hostile pile of intermediates costs little', async () => {
  // Many CAs with one name and one key id, each a possible issuer of each.
  const attest = await attestor({ maxIntermediates: 15 });
  const evil = testAuthority({ trustDomain: 'pki.example', now });
  const twins = Array.from(
    { length: 15 },
    () => evil.intermediate({ subject: evil.certificate.subject, publicKey: evil.key.publicKey }).der,
  );
  await assert.rejects(
    attest(payloadOf(evil.issue(wishes).der, ...twins), async () => Buffer.alloc(0)),
    Fault,
  );
});

test('mode spiffe: an SVID of this trust domain, named by its path below the prefix', async (t) => {
  const server = await testServer(t, { flags: { 'node-attestors-x509pop-mode': 'spiffe' } });
  const attest = async (path: string) => {
    const svid = await server.mint(path);
    return attestWith(server.nobody.channel, 'x509pop', payloadOf(...svid.chain), (challenge) =>
      answer(challenge, { key: svid.key }),
    );
  };
  const agent = await attest('/spire-exchange/rack/7');
  assert.deepEqual([agent.id, agent.reattestable], ['spiffe://example.org/spire/agent/x509pop/rack/7', true]);
  for (const path of ['/spire-exchangeX/a', '/web', '/spire-exchange'])
    assert.match((await refusalOf(attest(path))).message, /not under the prefix/);
  const foreign = testAuthority({ now: server.clock.now() }).issue({ id: 'spiffe://example.org/spire-exchange/a' });
  const fault = await refusalOf(
    attestWith(server.nobody.channel, 'x509pop', payloadOf(...foreign.chain), (challenge) =>
      answer(challenge, { key: keyOf(foreign) }),
    ),
  );
  assert.equal(fault.status, 3);
});

test('a CA bundle that cannot be read, or holds none, is a fault of the configuration', async () => {
  await assert.rejects(
    attestor({ caBundlePaths: ['/nowhere/roots.pem'] }),
    (error) =>
      error instanceof Fault && error.code === 'config/invalid' && /"\/nowhere\/roots.pem"/.test(error.message),
  );
});
