/**
 * What our server issues, judged by others: OpenSSL's strict path validation, the rules of the X.509-SVID standard on facts
 * that another parser read, and JWT-SVIDs by go-jose (through go-spiffe) and PyJWT. For every kind of authority key.
 */

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { after, before, describe } from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import {
  admin,
  createEntry,
  joinToken,
  type Server,
  startAgent,
  startServer,
  verifyJwtOffline,
  workload,
  writeBundle,
} from './support/pair.ts';
import { makePlace } from './support/place.ts';
import { runOk } from './support/program.ts';
import { spireCli } from './support/spire.ts';
import { until } from './support/until.ts';

/** As py/certificate.py prints them. */
interface Facts {
  // biome-ignore lint/suspicious/noExplicitAny: each fact has its own type, and the rules say which they expect.
  readonly [fact: string]: any;
}
type Rule = readonly [claim: string, holds: (facts: Facts) => boolean];

const script = (name: string) => join(import.meta.dirname, 'py', name);
const python = (name: string, ...args: string[]) => runOk(peerPath('py-spiffe'), [script(name), ...args]);

const serverAuth = '1.3.6.1.5.5.7.3.1';
const clientAuth = '1.3.6.1.5.5.7.3.2';

const leafRules: readonly Rule[] = [
  ['X509-1 X509-2 has exactly one URI SAN, a SPIFFE ID', (c) => c.uris.length === 1 && /^spiffe:\/\//.test(c.uris[0])],
  ['X509-4 X509-26 its ID has a path', (c) => /^spiffe:\/\/[^/]+\/.+/.test(c.uris[0])],
  ['X509-5 its SAN is critical when the subject is empty', (c) => c.subject !== '' || c.san_critical],
  ['X509-12 X509-25 it is no CA', (c) => c.ca === false],
  ['X509-15 its key usage is there and critical', (c) => c.usage.length > 0 && c.usage_critical],
  ['X509-18 it may sign', (c) => c.usage.includes('digital_signature')],
  [
    'X509-19 X509-20 it may do no more than a leaf',
    (c) => c.usage.every((use: string) => ['digital_signature', 'key_encipherment', 'key_agreement'].includes(use)),
  ],
  [
    'X509-21 X509-22 it is for servers and clients',
    (c) => [serverAuth, clientAuth].every((oid) => c.extended.includes(oid)),
  ],
  ['X509-24 it is signed by its authority', (c) => c.signed_by_issuer === true],
  ['X509-24 it has no critical extension that others do not know', (c) => c.unknown_critical.length === 0],
  ['X509-24 it is not valid longer than its authority', (c) => c.not_after <= c.issuer_not_after],
  [
    'it is version 3 with a serial number of at most 159 bits',
    (c) => c.version === 'v3' && c.serial_bits > 60 && c.serial_bits < 160,
  ],
];

const authorityRules: readonly Rule[] = [
  ['X509-6 the authority is a CA, said critically', (c) => c.ca === true && c.basic_critical],
  [
    'X509-7 X509-8 X509-9 it carries the ID of its trust domain, no path',
    (c) => c.uris.join() === 'spiffe://example.org',
  ],
  ['X509-15 X509-16 it may sign certificates', (c) => c.usage.includes('key_cert_sign') && c.usage_critical],
  [
    'X509-17 X509-32 and nothing but these',
    (c) => c.usage.every((use: string) => ['key_cert_sign', 'crl_sign'].includes(use)),
  ],
  ['X509-29 it is signed by itself', (c) => c.self_issued && c.signed_by_issuer === true],
  ['X509-24 it has no critical extension that others do not know', (c) => c.unknown_critical.length === 0],
];

/** Runs the rules and names every one that does not hold. */
function lint(what: string, facts: Facts, rules: readonly Rule[]): void {
  const broken = rules.filter(([, holds]) => !holds(facts)).map(([claim]) => claim);
  assert.deepEqual(broken, [], `${what}: ${JSON.stringify(facts)}`);
}

const pems = (text: string): string[] =>
  text.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
const toPem = (base64: string): string =>
  `-----BEGIN CERTIFICATE-----\n${base64.replace(/.{64}/g, '$&\n').trimEnd()}\n-----END CERTIFICATE-----`;

const kinds = {
  'ec-p256': 'ES256',
  'ec-p384': 'ES384',
  'rsa-2048': 'RS256',
  'rsa-3072': 'RS256',
  'rsa-4096': 'RS256',
} as const;

for (const [keyType, alg] of Object.entries(kinds))
  describe(`what a server with ${keyType} authorities issues`, () => {
    const place = makePlace();
    let server: Server;
    let root: string;
    before(async () => {
      server = await startServer('mutual', place, 'server', { caKeyType: keyType });
      root = await writeBundle(server);
    });
    after(() => place.close());

    /** Writes leaf and intermediates, lets OpenSSL judge the path, and gives each certificate's facts; the root's last. */
    async function judge(name: string, chain: readonly string[]): Promise<Facts[]> {
      const [leaf, above] = [place.path(`${name}.pem`), place.path(`${name}-above.pem`)];
      writeFileSync(leaf, `${chain[0]}\n`);
      writeFileSync(above, `${chain.slice(1).join('\n')}\n`);
      const untrusted = chain.length > 1 ? ['-untrusted', above] : [];
      for (const purpose of ['sslserver', 'sslclient'])
        await runOk('openssl', ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', root, ...untrusted, leaf]);
      const whole = place.path(`${name}-whole.pem`);
      writeFileSync(whole, `${chain.join('\n')}\n${readFileSync(root, 'utf8')}\n`);
      return JSON.parse(await python('certificate.py', whole));
    }

    test('a minted X.509-SVID', async () => {
      const minted = await spireCli(server.adminSocket, [
        ...['x509', 'mint', '-spiffeID', 'spiffe://example.org/minted', '-dns', 'a.test', '-dns', 'b.test'],
      ]);
      const [leaf] = pems(minted.stdout);
      const [facts, authority] = await judge('minted', [leaf!]);
      lint('SVID', facts!, leafRules);
      lint('authority', authority!, authorityRules);
      assert.deepEqual(facts!.dns, ['a.test', 'b.test']);
      assert.equal(facts!.authority_key, authority!.subject_key);
    });

    test('the X.509-SVID a workload gets', async () => {
      const alias = 'spiffe://example.org/node';
      await createEntry(server, 'spiffe://example.org/web', alias, [`unix:uid:${process.getuid!()}`]);
      const agent = await startAgent('mutual', place, 'agent', server, {
        bundle: root,
        joinToken: await joinToken(server, alias),
      });
      const { svids } = await until('an SVID', 60_000, () => workload(agent, 'x509'));
      const [facts] = await judge('workload', svids[0].chain.map(toPem));
      lint('SVID', facts!, leafRules);
    });

    test('the X.509-SVID the server itself presents', async () => {
      const address = `127.0.0.1:${server.port}`;
      const shown = await runOk('openssl', ['s_client', '-connect', address, '-alpn', 'h2', '-showcerts']);
      const [facts] = await judge('server', pems(shown));
      lint('SVID', facts!, leafRules);
      assert.deepEqual(facts!.uris, ['spiffe://example.org/spire/server']);
    });

    test('X509-27 X509-28 X509-33 its bundle: one key a CA, x5c in base64 with that CA alone, no kid', async () => {
      const { stdout } = await spireCli(server.adminSocket, ['bundle', 'show', '-format', 'spiffe']);
      const keys = JSON.parse(stdout).keys.filter((key: { use: string }) => key.use === 'x509-svid');
      assert.equal(keys.length, 1);
      assert.equal(keys[0].kid, undefined);
      assert.equal(keys[0].x5c.length, 1);
      assert.match(keys[0].x5c[0], /^[A-Za-z0-9+/]+=*$/);
      assert.deepEqual(pems(toPem(keys[0].x5c[0])), pems(readFileSync(root, 'utf8')));
    });

    test('a JWT-SVID, validated by go-jose and by PyJWT', async () => {
      const { svid } = await admin(
        server,
        ...'jwt mint -spiffeID spiffe://example.org/web -audience a -audience b'.split(' '),
      );
      const judged = await verifyJwtOffline(server, svid.token, 'b');
      assert.equal(judged.id, 'spiffe://example.org/web');
      const { header, claims } = JSON.parse(
        await python('verify_jwt.py', join(server.dir, 'example.org.json'), 'a', svid.token),
      );
      assert.equal(header.alg, alg);
      assert.ok(header.typ === undefined || header.typ === 'JWT' || header.typ === 'JOSE');
      assert.deepEqual(Object.keys(claims).sort(), ['aud', 'exp', 'iat', 'sub']);
      assert.deepEqual(claims.aud, ['a', 'b']);
    });
  });
