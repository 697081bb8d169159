/** A service and its caller, with WIT-SVIDs from a real agent below a real server, over real TLS. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { witVerifier } from '../../sdk/wit-verifier.ts';
import { openWits } from '../../sdk/wits.ts';
import { pemEncode } from '../../src/crypto/pem.ts';
import { Fault, Status } from '../../src/errors.ts';
import type { HeldKey } from '../../src/keys/key-store.ts';
import { systemRandom } from '../../src/run/random.ts';
import { parseId, parseTrustDomain } from '../../src/spiffe/id.ts';
import { testAuthority } from '../support/ca.ts';
import { fault } from '../support/fault.ts';
import { startPair } from '../support/pair.ts';

const enabled = { witSvidsEnabled: true };

test('WIT-20 WIT-23 WIT-27 a caller is known to a service by the headers of its request, once', async (t) => {
  const p = await startPair(t, { server: enabled, agent: enabled });
  await p.admin.createEntry('/web');
  const ports = { clock: p.clock, random: systemRandom };
  const [caller, service] = await p.pass(
    Promise.all([openWits(p.agent.socket, undefined, ports), openWits(p.agent.socket, undefined, ports)]),
  );
  t.after(() => {
    for (const one of [caller, service]) one.close();
  });

  const tls = testAuthority({ now: Date.now() }).issue({ dnsNames: ['localhost'], notAfter: Date.now() + 3_600_000 });
  const key = createPrivateKey({ key: (tls.key as HeldKey).exportPkcs8(), format: 'der', type: 'pkcs8' });
  const server = createServer({
    cert: pemEncode('CERTIFICATE', tls.der),
    key: key.export({ format: 'pem', type: 'pkcs8' }),
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => server.close());
  const url = `https://localhost:${(server.address() as AddressInfo).port}`;
  const verify = witVerifier({ audience: url, bundleOf: service.bundleOf, now: p.clock.now });
  server.on('request', (message, answer) => {
    verify(message).then(
      ({ id }) => answer.end(id),
      (error: Fault) => answer.writeHead(401).end(error.message),
    );
  });
  const ask = async (headers: Record<string, string>) => {
    const asked = request(url, {
      headers,
      rejectUnauthorized: false,
      lookup: (_h, _o, done) => done(null, [{ address: '127.0.0.1', family: 4 }]),
    });
    asked.end();
    const [response] = await once(asked, 'response');
    let text = '';
    for await (const part of response) text += part;
    return `${response.statusCode} ${text}`;
  };
  const headers = caller.headersFor(`${url}/orders`);
  assert.equal(await ask(headers), '200 spiffe://example.org/web');
  assert.match(await ask(headers), /^401 .*used before/);
  assert.equal(await ask(caller.headersFor(url)), '200 spiffe://example.org/web');
  assert.match(await ask(caller.headersFor(url, { audience: 'https://other' })), /^401 .*for audience/);
  assert.match(await ask({}), /^401 .*has none/);
  assert.throws(() => caller.headersFor('http://localhost'), fault('input/invalid', /https/));
  assert.throws(
    () => caller.headersFor(url, { id: parseId('spiffe://example.org/other') }),
    fault('caller/denied', /no WIT-SVID for/),
  );
  assert.equal(service.bundleOf(parseTrustDomain('other.org')), undefined);
});

test('the SVIDs at hand are those of the last message, also after the agent was away', async (t) => {
  const p = await startPair(t, { server: enabled, agent: enabled });
  await p.admin.createEntry('/web');
  const wits = await p.pass(openWits(p.agent.socket, undefined, { clock: p.clock, random: systemRandom }));
  t.after(() => wits.close());
  const before = wits.svids[0]?.token;
  await p.stopAgent();
  await p.startAgent();
  for (let turn = 0; wits.svids[0]?.token === before; turn++) {
    assert.ok(turn < 120, 'no new token');
    await p.pass(Promise.resolve());
    await p.clock.advance(1_000);
  }
  assert.notEqual(wits.svids[0]?.token, before);
});

test('WA-4 an agent without WIT-SVIDs is asked once', async (t) => {
  const p = await startPair(t, {});
  await p.admin.createEntry('/web');
  await assert.rejects(
    openWits(p.agent.socket, undefined, { clock: p.clock, random: systemRandom }),
    (error: Fault) => error instanceof Fault && error.status === Status.UNIMPLEMENTED,
  );
});
