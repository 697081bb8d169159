/** Whose turn it is to shake hands, on real sockets and a driven clock. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer, connect as tlsConnect } from 'node:tls';
import { handshakesInTurn } from '../../../src/rpc/handshakes.ts';
import { parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';

const now = Date.now();
const { chain, key } = testAuthority({ now }).issue({ id: serverId(parseTrustDomain('example.org')) });
const credentials = {
  chain,
  key: createPrivateKey({ key: key!.exportPkcs8!(), format: 'der', type: 'pkcs8' }),
};

async function listen(t: TestContext) {
  const clock = drivenClock(now);
  const tls = createServer({ ...secureContextOptions(credentials), handshakeTimeout: 60_000 });
  const begun: unknown[] = [];
  tls.on('connection', (socket) => begun.push(socket));
  const front = handshakesInTurn(tls, clock);
  front.listen(0, '127.0.0.1');
  await once(front, 'listening');
  const { port } = front.address() as AddressInfo;
  const silent: Socket[] = [];
  t.after(() => {
    for (const socket of silent) socket.destroy();
    front.close();
  });
  /** Connections that say nothing, all accepted when this resolves. */
  const keepSilent = async (count: number): Promise<void> => {
    let accepted = 0;
    const all = new Promise<void>((resolve) => {
      front.on('connection', () => {
        accepted += 1;
        if (accepted === count) resolve();
      });
    });
    for (let made = 0; made < count; made += 1) {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      silent.push(socket);
    }
    await all;
  };
  return { clock, begun, port, keepSilent, silent };
}

test('128 handshakes are under way at a time, and the next begins when one of them goes away', async (t) => {
  const { begun, keepSilent, silent, port } = await listen(t);
  await keepSilent(130);
  assert.equal(begun.length, 128);
  silent[0]!.destroy();
  silent[1]!.destroy();
  const honest = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  silent.push(honest);
  silent[2]!.destroy();
  await once(honest, 'secureConnect');
  assert.equal(begun.length, 131);
});

test('connections that say nothing keep others out for their turn only', async (t) => {
  const { clock, begun, keepSilent, silent, port } = await listen(t);
  await keepSilent(300);
  const honest = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  silent.push(honest);
  const done = once(honest, 'secureConnect');
  await once(honest, 'connect');
  await clock.advance(250);
  await clock.advance(250);
  await done;
  assert.equal(begun.length, 301);
});
