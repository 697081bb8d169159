import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer, type SecureContextOptions, connect as tlsConnect } from 'node:tls';
import { connectTls } from '../../../src/rpc/connect.ts';
import { serveTls } from '../../../src/rpc/serve.ts';
import { live } from '../../../src/run/live.ts';
import { parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import { keyExchange } from '../../../src/tls/key-exchange.ts';
import { testAuthority } from '../../support/ca.ts';
import { fault } from '../../support/fault.ts';

const td = parseTrustDomain('example.org');
const ca = testAuthority({ now: Date.now() });
const shown = () => {
  const { chain, key } = ca.issue({ id: serverId(td) });
  return { chain, key: createPrivateKey({ key: key!.exportPkcs8!(), format: 'der', type: 'pkcs8' }) };
};
const service = 'spire.api.server.agent.v1.Agent';

async function listener(t: TestContext, requirePostQuantum: boolean) {
  const context = live(secureContextOptions(shown()));
  const serving = await serveTls({
    at: { host: '127.0.0.1', port: 0 },
    context,
    requirePostQuantum,
    verifyClient: (chain) => verifyX509Svid(chain, ca.bundle(), Date.now()),
    services: [{ name: service, methods: { CountAgents: () => {} } }],
  });
  t.after(() => serving.close(0));
  return { port: serving.port, renew: () => context.set(secureContextOptions(shown())) };
}

/** The group that both ends take, or the code of the refusal. */
function handshake(port: number, options: SecureContextOptions): Promise<string> {
  return new Promise((resolve) => {
    const socket = tlsConnect({
      port,
      host: '127.0.0.1',
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
      ...options,
    });
    socket.once('secureConnect', () => {
      resolve((socket.getEphemeralKeyInfo() as { name: string }).name);
      socket.destroy();
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(`refused: ${error.code}`));
  });
}

/** One call of our own client. */
async function call(port: number, requirePostQuantum: boolean): Promise<void> {
  const channel = connectTls({
    host: '127.0.0.1',
    port,
    trustDomain: td,
    bundle: () => [ca.der],
    expect: serverId(td),
    requirePostQuantum,
  });
  try {
    await channel.unary(service, 'CountAgents', {}, { deadlineMs: 60_000 });
  } finally {
    channel.close();
  }
}

test('a listener prefers X25519MLKEM768, and still takes who has only elliptic curves', async (t) => {
  const { port } = await listener(t, false);
  assert.equal(await handshake(port, {}), 'X25519MLKEM768');
  // Preferred even where the client has sent its share of another.
  assert.equal(await handshake(port, { ecdhCurve: 'X25519:X25519MLKEM768' }), 'X25519MLKEM768');
  assert.equal(await handshake(port, { ecdhCurve: 'X25519' }), 'X25519');
  assert.equal(await handshake(port, { ecdhCurve: 'P-256', maxVersion: 'TLSv1.2' }), 'prime256v1');
  await call(port, false);
});

test('a listener that requires it refuses all others, before and after its certificate is renewed', async (t) => {
  const { port, renew } = await listener(t, true);
  for (const turn of ['before', 'after']) {
    if (turn === 'after') renew();
    assert.equal(await handshake(port, {}), 'X25519MLKEM768', turn);
    assert.match(await handshake(port, { ecdhCurve: 'X25519' }), /^refused/, turn);
    assert.match(await handshake(port, { maxVersion: 'TLSv1.2' }), /^refused/, turn);
    await call(port, true);
    await call(port, false);
  }
});

test('a client that requires it offers nothing else, and goes to no server without it', async (t) => {
  const { chain, key } = shown();
  const old = createServer({
    ...secureContextOptions({ chain, key }),
    ecdhCurve: 'X25519:P-256',
    ALPNProtocols: ['h2'],
  });
  old.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => old.listen(0, '127.0.0.1', resolve));
  t.after(() => old.close());
  await assert.rejects(call((old.address() as AddressInfo).port, true), fault('peer/unavailable', /cannot reach/));
});

test('a runtime without such groups refuses the option in a sentence', () => {
  assert.throws(() => keyExchange(true, []), fault('config/invalid', /this Node has no hybrid post-quantum groups$/));
  assert.deepEqual(keyExchange(false), { minVersion: 'TLSv1.2' });
});
