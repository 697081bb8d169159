/** What a page over https may do to a node that bootstraps; the server is real, its authority one of the test. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { fetchHttps } from '../../agent/fetch-https.ts';
import type { Fault } from '../../src/errors.ts';
import { testAuthority } from '../support/ca.ts';

const pem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`;
const authority = testAuthority({ now: Date.now() });
const { chain, key } = authority.issue({ dnsNames: ['localhost'], extendedKeyUsage: ['serverAuth'] });
const seen: string[] = [];
let answer: (request: IncomingMessage, response: ServerResponse) => void = () => {};
const server = createServer(
  {
    cert: chain.map(pem).join(''),
    key: createPrivateKey({ key: key!.exportPkcs8(), format: 'der', type: 'pkcs8' }).export({
      format: 'pem',
      type: 'pkcs8',
    }),
  },
  (request, response) => {
    seen.push(request.url ?? '');
    answer(request, response);
  },
);
await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
after(() => {
  server.closeAllConnections();
  server.close();
});
const at = `https://localhost:${(server.address() as AddressInfo).port}`;
const ca = pem(authority.der);
const refusal = (promise: Promise<string>): Promise<Fault> =>
  promise.then(
    (text) => assert.fail(`it was fetched: ${text}`),
    (fault) => fault,
  );

test('a page is given as it is', async () => {
  answer = (_, response) => response.end('{"keys": []}');
  assert.equal(await fetchHttps(`${at}/bundle`, 100, ca), '{"keys": []}');
});

test('CVE-2026-41413 CVE-2026-45796 an address in an answer is never gone to', async () => {
  for (const status of [301, 302, 303, 307, 308]) {
    seen.length = 0;
    answer = (_, response) => response.writeHead(status, { location: `${at}/elsewhere` }).end('go on');
    const fault = await refusal(fetchHttps(`${at}/bundle`, 100, ca));
    assert.equal(fault.code, 'peer/unavailable');
    assert.match(fault.message, new RegExp(`/bundle" cannot be fetched: the answer is ${status}, not 200$`));
    assert.deepEqual(seen, ['/bundle']);
  }
});

test('an answer that is no page is told by its number, and not by what it says', async () => {
  answer = (_, response) => response.writeHead(500).end('secret of another service');
  const fault = await refusal(fetchHttps(`${at}/bundle`, 100, ca));
  assert.match(fault.message, /the answer is 500, not 200/);
  assert.doesNotMatch(`${fault.message} ${fault.hint}`, /secret/);
});

test('a page that is too large, or never ends, is left after that many bytes', async () => {
  answer = (_, response) => {
    const more = (): void => {
      while (!response.destroyed && response.write('x'.repeat(1000)));
    };
    response.on('drain', more);
    more();
  };
  const fault = await refusal(fetchHttps(`${at}/bundle`, 5_000, ca));
  assert.match(fault.message, /it is larger than 5000 bytes/);
});

test('a page that ends in the middle is not taken', async () => {
  answer = (_, response) => {
    response.writeHead(200, { 'content-length': '100' }).write('half');
    setImmediate(() => response.destroy());
  };
  assert.equal((await refusal(fetchHttps(`${at}/bundle`, 5_000, ca))).code, 'peer/unavailable');
});

test('a server that no authority here vouches for is not asked anything', async () => {
  seen.length = 0;
  const other = testAuthority({ now: Date.now() });
  const fault = await refusal(fetchHttps(`${at}/bundle`, 100, pem(other.der)));
  assert.match(fault.message, /cannot be fetched: .*(certificate|issuer)/i);
  assert.deepEqual(seen, []);
});
