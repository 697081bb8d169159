/** What callers without an SVID may hold: on real sockets, by themselves, and against a whole server that nodes join. */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import { Status } from '../../../src/errors.ts';
import { connectTls } from '../../../src/rpc/connect.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { serveTls, type TlsOptions } from '../../../src/rpc/serve.ts';
import { partyOf, strangers } from '../../../src/rpc/strangers.ts';
import { live } from '../../../src/run/live.ts';
import { parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import { testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';
import { refusalOf, testServer } from '../../support/server.ts';

const bundles = 'spire.api.server.bundle.v1.Bundle';
const agents = 'spire.api.server.agent.v1.Agent';
const trustDomain = parseTrustDomain('example.org');
const now = Date.now();
const ca = testAuthority({ now });

async function serve(t: TestContext, more: Partial<TlsOptions> = {}) {
  const { chain, key } = ca.issue({ id: serverId(trustDomain) });
  const clock = drivenClock(now);
  const serving = await serveTls({
    at: { host: '127.0.0.1', port: 0 },
    context: live(
      secureContextOptions({
        chain,
        key: createPrivateKey({ key: key!.exportPkcs8!(), format: 'der', type: 'pkcs8' }),
      }),
    ),
    verifyClient: () => assert.fail('nobody here shows a certificate'),
    clock,
    services: [
      {
        name: bundles,
        methods: { GetBundle: () => ({ trust_domain: 'example.org' }) },
      },
      {
        name: agents,
        methods: {
          async AttestAgent(requests) {
            for await (const _ of requests);
          },
        },
      },
    ],
    ...more,
  });
  t.after(async () => {
    const closed = serving.close(0);
    await clock.advance(0);
    await closed;
  });
  const caller = () => {
    const channel = connectTls({
      ...{ host: '127.0.0.1', port: serving.port, trustDomain },
      ...{ bundle: () => [ca.der], expect: serverId(trustDomain) },
    });
    t.after(() => channel.close());
    return channel;
  };
  return { clock, port: serving.port, caller };
}

/** A connection of somebody who says of each call how it begins, and no more. */
async function silentOne(t: TestContext, port: number, localAddress = '127.0.0.1'): Promise<ClientHttp2Session> {
  const from = { host: '127.0.0.1', port, localAddress, rejectUnauthorized: false, ALPNProtocols: ['h2'] };
  const session = connect(`https://127.0.0.1:${port}`, {
    createConnection: () => tlsConnect(from),
  });
  session.on('error', () => {});
  t.after(() => session.destroy());
  await once(session, 'remoteSettings');
  return session;
}
/** Begins a call; its end is the headers or trailers with the status, or undefined when it was just broken off. */
function begin(session: ClientHttp2Session, path: string, whole?: Buffer) {
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  let last: IncomingHttpHeaders | undefined;
  const note = (headers: IncomingHttpHeaders): void => {
    if (headers['grpc-status'] !== undefined) last = headers;
  };
  stream
    .on('response', note)
    .on('trailers', note)
    .on('error', () => {})
    .resume();
  const end = new Promise<IncomingHttpHeaders | undefined>((resolve) => {
    stream.once('close', () => resolve(last));
    stream.once('end', () => resolve(last));
    // What does not come is undefined, so that no test waits for ever.
    const timer = setTimeout(() => resolve(undefined), 30_000).unref();
    stream.once('close', () => clearTimeout(timer));
  });
  if (whole !== undefined) stream.end(whole);
  return { stream, end };
}
const nothing = Buffer.alloc(5);
const getBundle = `/${bundles}/GetBundle`;
const attestAgent = `/${agents}/AttestAgent`;

test('sixteen calls that say nothing are told so when their time is over, and the seventeenth of that connection is answered', async (t) => {
  const { clock, port, caller } = await serve(t);
  const session = await silentOne(t, port);
  const silent = Array.from({ length: 16 }, () => begin(session, getBundle));
  const seventeenth = begin(session, getBundle, nothing);
  // Somebody else is none the worse for it, from the same address too.
  await caller().unary(bundles, 'GetBundle', {});
  await clock.advance(9_999);
  let isAnswered = false;
  void seventeenth.end.then(() => {
    isAnswered = true;
  });
  await caller().unary(bundles, 'GetBundle', {});
  assert.equal(isAnswered, false);
  await clock.advance(1);
  for (const { end } of silent) {
    const answer = await end;
    assert.equal(Number(answer?.['grpc-status']), Status.DEADLINE_EXCEEDED);
    assert.match(decodeURI(answer?.['grpc-message'] as string), /did not come within 10 seconds/);
  }
  assert.equal(Number((await seventeenth.end)?.['grpc-status']), 0);
});

test('a call that lasts for longer than any attestation may is broken off', async (t) => {
  const { clock, port } = await serve(t);
  const session = await silentOne(t, port);
  const { stream, end } = begin(session, attestAgent);
  stream.write(nothing);
  await clock.advance(60_000);
  const other = begin(session, getBundle, nothing);
  assert.equal(Number((await other.end)?.['grpc-status']), 0);
  assert.equal(stream.closed, false);
  await clock.advance(60_000);
  assert.equal(await end, undefined);
});

test('more calls at a time from one address than it may have are refused at once, with when to come again', async (t) => {
  const refused: string[] = [];
  const { port, caller } = await serve(t, {
    strangers: { callsOfAddress: 20 },
    onDone: (call, fault) => void (fault && refused.push(`${call.method} ${fault.code}`)),
  });
  const held: ReturnType<typeof begin>[] = [];
  const [one, two] = [await silentOne(t, port), await silentOne(t, port)];
  const hold = (session: ClientHttp2Session): void => {
    for (let i = 0; i < 10; i += 1) held.push(begin(session, attestAgent));
  };
  const status = async (session: ClientHttp2Session): Promise<number> =>
    Number((await begin(session, getBundle, nothing).end)?.['grpc-status']);
  // A connection's calls are taken in their order.
  hold(one);
  assert.equal(await status(one), Status.OK);
  hold(two);
  for (const session of [two, one]) assert.equal(await status(session), Status.RESOURCE_EXHAUSTED);
  const fault = await refusalOf(caller().unary(bundles, 'GetBundle', {}));
  assert.equal(fault.code, 'limit/exceeded');
  assert.match(fault.message, /too many calls at a time from this address without an SVID\. Try again later/);
  assert.equal(fault.retryAfterMs, 5_000);
  assert.deepEqual(refused, Array(3).fill(`${getBundle} limit/exceeded`));
  held[0]!.stream.close();
  await held[0]!.end;
  await caller().unary(bundles, 'GetBundle', {});
});

test('the oldest connection of an address makes room for the next, and its streams are told why', async (t) => {
  const { clock, port, caller } = await serve(t, { strangers: { connectionsOfAddress: 3 } });
  const first = await silentOne(t, port);
  const stream = begin(first, attestAgent);
  const ended = once(first, 'close');
  for (let i = 0; i < 2; i += 1) await silentOne(t, port);
  assert.equal(stream.stream.closed, false);
  await caller().unary(bundles, 'GetBundle', {});
  const answer = await stream.end;
  assert.equal(Number(answer?.['grpc-status']), Status.RESOURCE_EXHAUSTED);
  assert.match(decodeURI(answer?.['grpc-message'] as string), /too many connections from this address/);
  await clock.advance(1_000);
  await ended;
});

test('of all addresses together the oldest connection makes room, and a connection that ended counts no more', () => {
  const clock = drivenClock(0);
  const limits = { connectionsOfAddress: 2, connections: 3, callsOfAddress: 1, requestMs: 1, callMs: 10 };
  const { connected, called } = strangers(limits, clock);
  const ended: string[] = [];
  const come = (address: string, name: string) => connected(address, () => ended.push(name));
  const leave = come('192.0.2.1', 'a');
  come('192.0.2.2', 'b');
  leave();
  leave();
  come('192.0.2.3', 'c');
  come('192.0.2.2', 'd');
  assert.deepEqual(ended, []);
  come('192.0.2.2', 'e');
  assert.deepEqual(ended, ['b']);
  come('192.0.2.4', 'f');
  assert.deepEqual(ended, ['b', 'c']);
  const over = called('192.0.2.1', () => {});
  assert.equal(
    called('192.0.2.1', () => {}),
    undefined,
  );
  assert.ok(called('192.0.2.2', () => {}));
  over!();
  over!();
  assert.ok(called('192.0.2.1', () => {}));
  assert.equal(
    called('192.0.2.1', () => {}),
    undefined,
  );
});

test('addresses of IPv6 stand for whoever has the network they are in', () => {
  for (const [address, party] of [
    ['192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::6', '2001:db8:1:2::/64'],
    ['2001:db8::6', '2001:db8:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['', ''],
  ] as const)
    assert.equal(partyOf(address), party);
});

test('a stranger who holds all the calls it can keeps no node from joining, not for long even from its own address', async (t) => {
  const server = await testServer(t);
  const { port } = server.running.address;
  const sessions: ClientHttp2Session[] = [];
  const come = async (): Promise<ClientHttp2Session> => {
    const session = await silentOne(t, port, '127.0.0.2');
    sessions.push(session);
    return session;
  };
  try {
    const held: ReturnType<typeof begin>[] = [];
    while (sessions.length < 34) {
      const session = await come();
      for (let call = 0; call < 16; call += 1) held.push(begin(session, attestAgent));
    }
    const agent = await server.attest();
    assert.equal((await agent.call('entry', 'GetAuthorizedEntries')).entries.length, 0);

    // The node of the same address is told when to come again, and is in when the others' time is over.
    const neighbour = await come();
    const early = await begin(neighbour, getBundle, nothing).end;
    assert.equal(Number(early?.['grpc-status']), Status.RESOURCE_EXHAUSTED);
    const details = Buffer.from(early?.['grpc-status-details-bin'] as string, 'base64');
    assert.equal(messageCodec('google.rpc.Status').decode(details).details.length, 1);
    await server.clock.advance(60_000);
    const told = await Promise.all(held.map(({ end }) => end));
    const statuses = told.map((answer) => Number(answer?.['grpc-status']));
    assert.equal(statuses.filter((status) => status === Status.DEADLINE_EXCEEDED).length, 512);
    assert.equal(statuses.filter((status) => status === Status.RESOURCE_EXHAUSTED).length, 32);
    await server.clock.advance(1_000);
    const late = await begin(neighbour, getBundle, nothing).end;
    assert.equal(Number(late?.['grpc-status']), Status.OK);
    await server.attest();
  } finally {
    for (const session of sessions) session.destroy();
  }
});
