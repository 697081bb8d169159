/** gRPC over mutual TLS, both of our ends, on real sockets: who is let in, who is believed, and what rotates. */
import assert from 'node:assert/strict';
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { Fault, Status } from '../../../src/errors.ts';
import { connectTls } from '../../../src/rpc/connect.ts';
import { type Call, serveTls, type TlsOptions } from '../../../src/rpc/serve.ts';
import type { ExpectedServer } from '../../../src/rpc/spiffe-credentials.ts';
import { live } from '../../../src/run/live.ts';
import { parseTrustDomain, serverId } from '../../../src/spiffe/id.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import { middling } from '../../agent/support/random.ts';
import { type IssuedSvid, type TestAuthority, testAuthority } from '../../support/ca.ts';
import { drivenClock } from '../../support/clock.ts';

const agents = 'spire.api.server.agent.v1.Agent';
const workload = 'SpiffeWorkloadAPI';
const trustDomain = parseTrustDomain('example.org');
const now = Date.now();
const ca = testAuthority({ now });
const stranger = testAuthority({ now });
const agentId = 'spiffe://example.org/spire/agent/x509pop/a';

const credentials = ({ chain, key }: IssuedSvid): { chain: readonly Buffer[]; key: KeyObject } => ({
  chain,
  key: createPrivateKey({ key: key!.exportPkcs8!(), format: 'der', type: 'pkcs8' }),
});
const serverOf = (authority: TestAuthority, wishes = {}) =>
  credentials(authority.issue({ id: serverId(trustDomain), ...wishes }));
const agentOf = (authority: TestAuthority, wishes = {}) => credentials(authority.issue({ id: agentId, ...wishes }));

async function serve(more: Partial<TlsOptions> = {}) {
  const context = live(secureContextOptions(serverOf(ca)));
  const calls: Call[] = [];
  const refused: Fault[] = [];
  const serving = await serveTls({
    at: { host: '127.0.0.1', port: 0 },
    context,
    verifyClient: (chain) => verifyX509Svid(chain, ca.bundle(), now),
    services: [
      {
        name: agents,
        methods: {
          CountAgents: (_request, call) => void calls.push(call),
          PostStatus() {},
          async AttestAgent(requests, _call, send) {
            for await (const _request of requests) await send({ challenge: Buffer.from('?') });
          },
        },
      },
    ],
    onRefused: (fault) => refused.push(fault),
    ...more,
  });
  const channel = (target: Partial<ExpectedServer & { host: string }> = {}) =>
    connectTls({
      host: '127.0.0.1',
      port: serving.port,
      trustDomain,
      bundle: () => [ca.der],
      expect: serverId(trustDomain),
      ...target,
    });
  /** One call on a connection of its own. */
  const call = async (target: Partial<ExpectedServer & { host: string }> = {}): Promise<Call> => {
    const own = channel(target);
    try {
      await own.unary(agents, 'CountAgents', {}, { deadlineMs: 60_000 });
    } finally {
      own.close();
    }
    return calls.at(-1) as Call;
  };
  return { context, calls, refused, serving, channel, call, [Symbol.asyncDispose]: () => serving.close(0) };
}

async function faultOf(promise: Promise<unknown>): Promise<Fault> {
  return promise.then(
    () => assert.fail('it worked'),
    (error: Fault) => error,
  );
}

/** A TLS client that checks nothing, connected. */
async function raw(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = tlsConnect({ host: '127.0.0.1', port, rejectUnauthorized: false, ALPNProtocols: ['h2'], ...options });
  await once(socket, 'secureConnect');
  return socket;
}

test('a caller without a certificate is let in as nobody, with its address', async () => {
  await using server = await serve();
  const { caller } = await server.call();
  assert.deepEqual(caller, { kind: 'tls', address: '127.0.0.1', chain: [] });
  assert.match(server.serving.address, /^127\.0\.0\.1:\d+$/);
});

test('a caller with an SVID is known by its ID and leaf, also through intermediates', async () => {
  await using server = await serve();
  const below = ca.intermediate({ pathLength: 1 }).intermediate();
  for (const svid of [agentOf(ca), agentOf(below)]) {
    const { caller } = await server.call({ svid: () => svid });
    assert.ok(caller.kind === 'tls');
    assert.equal(caller.svid?.id, agentId);
    assert.deepEqual(caller.svid?.leaf.der, svid.chain[0]);
    assert.deepEqual(caller.chain, svid.chain);
  }
});

test('a peer is verified once a connection, not once a call', async () => {
  let verified = 0;
  await using server = await serve({
    verifyClient(chain) {
      verified += 1;
      return verifyX509Svid(chain, ca.bundle(), now);
    },
  });
  const svid = agentOf(ca);
  const channel = server.channel({ svid: () => svid });
  for (let i = 0; i < 5; i++) await channel.unary(agents, 'CountAgents', {});
  assert.equal(verified, 1);
  assert.equal(new Set(server.calls.map(({ caller }) => caller)).size, 1);
  channel.close();
});

test('X509-24 S#655 a certificate that is presented and does not verify ends the connection', async () => {
  await using server = await serve();
  const wrong: [string, IssuedSvid | { chain: readonly Buffer[]; key: KeyObject }][] = [
    ['another authority', agentOf(stranger)],
    ['expired', agentOf(ca, { notBefore: now - 7200_000, notAfter: now - 1000 })],
    ['not yet valid', agentOf(ca, { notBefore: now + 600_000 })],
    ['no ID', agentOf(ca, { uris: [], dnsNames: ['a.example.org'] })],
    ['two IDs', agentOf(ca, { uris: [agentId, 'spiffe://example.org/admin'] })],
    ['an authority as a peer', agentOf(ca, { ca: true })],
    ['another trust domain', agentOf(ca, { id: 'spiffe://other.org/agent' })],
  ];
  for (const [what, svid] of wrong) {
    const fault = await faultOf(server.call({ svid: () => svid as { chain: readonly Buffer[]; key: KeyObject } }));
    assert.equal(fault.status, Status.UNAVAILABLE, `${what}: ${fault.message}`);
  }
  assert.equal(server.calls.length, 0);
  assert.equal(server.refused.length >= wrong.length, true);
  assert.equal((await server.call()).caller.kind, 'tls');
});

test('a leaf without the intermediate that signed it does not verify', async () => {
  await using server = await serve();
  const svid = agentOf(ca.intermediate());
  await assert.rejects(server.call({ svid: () => ({ ...svid, chain: svid.chain.slice(0, 1) }) }));
  assert.equal(server.calls.length, 0);
});

test('CVE-2023-3518 a server is believed only with the expected ID and an authority of the bundle behind it', async () => {
  await using server = await serve();
  const untrusted = async (target: Partial<ExpectedServer & { host: string }>, said: RegExp): Promise<void> => {
    const fault = await faultOf(server.call(target));
    assert.equal(fault.code, 'peer/untrusted', fault.message);
    assert.match(fault.message, said);
  };
  await untrusted({ bundle: () => [stranger.der] }, /did not prove to be "spiffe:\/\/example.org\/spire\/server"/);
  await untrusted({ bundle: () => [] }, /did not prove/);
  await untrusted(
    { expect: serverId(parseTrustDomain('example.com')) },
    /it is "spiffe:\/\/example.org\/spire\/server"/,
  );
  assert.equal(server.calls.length, 0, 'no call was sent to a server that was not believed');
  await server.call({ bundle: () => [stranger.der, ca.der] });
});

test('an authority of the bundle need not be self-signed', async () => {
  const below = ca.intermediate();
  await using server = await serve({ context: live(secureContextOptions(serverOf(below))) });
  await server.call({ bundle: () => [below.der] });
  await server.call({ bundle: () => [ca.der] });
});

test('CVE-2021-32574 an impostor with another ID, an expired or a certificate of no authority is not believed', async () => {
  for (const wishes of [
    { id: agentId },
    { notBefore: now - 7200_000, notAfter: now - 1000 },
    { ca: true },
    { uris: [serverId(trustDomain), agentId] },
  ]) {
    await using server = await serve({ context: live(secureContextOptions(serverOf(ca, wishes))) });
    assert.equal((await faultOf(server.call())).code, 'peer/untrusted');
    assert.equal(server.calls.length, 0);
  }
});

test('an insecure bootstrap takes any authority, but no other ID', async () => {
  await using server = await serve();
  await server.call({ insecure: true, bundle: () => [] });
  assert.equal(
    (await faultOf(server.call({ insecure: true, expect: serverId(parseTrustDomain('example.com')) }))).code,
    'peer/untrusted',
  );
});

test('a server certificate that rotates is shown from the next handshake on; connections that are open go on', async () => {
  await using server = await serve();
  const old = server.channel();
  await old.unary(agents, 'CountAgents', {});
  server.context.set(secureContextOptions(serverOf(stranger)));
  await old.unary(agents, 'CountAgents', {});
  assert.equal((await faultOf(server.call())).code, 'peer/untrusted');
  await server.call({ bundle: () => [stranger.der] });
  old.close();
});

test('a context that cannot be used is refused to whoever sets it, and the old one stays', async () => {
  await using server = await serve();
  assert.throws(() => server.context.set({ cert: 'nonsense', key: 'nonsense' }));
  await server.call();
});

test('a client that reconnects shows its newest SVID, while its old streams go on', async () => {
  await using server = await serve();
  let svid = agentOf(ca);
  const channel = server.channel({ svid: () => svid });
  await channel.unary(agents, 'CountAgents', {});
  const talk = channel.bidi(agents, 'AttestAgent');
  await talk.send({});
  await talk.responses.next();
  svid = agentOf(ca, { id: 'spiffe://example.org/spire/agent/x509pop/b' });
  await channel.unary(agents, 'CountAgents', {});
  channel.reconnect();
  await channel.unary(agents, 'CountAgents', {});
  await talk.send({});
  assert.equal((await talk.responses.next()).done, false);
  talk.end();
  assert.equal((await talk.responses.next()).done, true);
  assert.deepEqual(
    server.calls.map(({ caller }) => caller.kind === 'tls' && caller.svid?.id.slice(-1)),
    ['a', 'a', 'b'],
  );
  channel.close();
});

test('SPIRE 1.14.3 session tickets: no session is resumed, in TLS 1.2 nor in TLS 1.3', async () => {
  await using server = await serve();
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const options = { maxVersion: version, minVersion: version, ...secureContextOptions(agentOf(ca)) };
    const sessions: Buffer[] = [];
    const first = tlsConnect({
      host: '127.0.0.1',
      port: server.serving.port,
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
      ...options,
    });
    first.on('session', (session) => sessions.push(session));
    await once(first, 'secureConnect');
    // The server's first frame comes after its tickets, if it made any.
    await once(first, 'data');
    const session = sessions.at(-1) ?? first.getSession();
    first.destroy();
    const second = await raw(server.serving.port, { ...options, ...(session === undefined ? {} : { session }) });
    assert.equal(second.isSessionReused(), false, version);
    second.destroy();
  }
});

test('SPIRE 1.4.3 TLS before 1.2 is refused, and so is a client that does not choose HTTP/2', async () => {
  await using server = await serve();
  const { port } = server.serving;
  await assert.rejects(raw(port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }));
  await assert.rejects(raw(port, { ALPNProtocols: ['http/1.1'] }));
  const plain = tlsConnect({ host: '127.0.0.1', port, rejectUnauthorized: false });
  plain.on('error', () => {});
  await once(plain.resume(), 'close');
  assert.ok(server.refused.some(({ message }) => message === 'the client does not speak HTTP/2'));
  assert.ok(server.refused.every(({ code }) => code === 'peer/untrusted'));
});

test('CVE-2022-23635 bytes that are no TLS, or end in the middle, disturb nobody', async () => {
  await using server = await serve();
  const { connect } = await import('node:net');
  for (const bytes of ['GET / HTTP/1.1\r\n\r\n', '\x16\x03\x01\x02', '']) {
    const socket = connect(server.serving.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.end(Buffer.from(bytes, 'latin1'));
    await once(socket.resume(), 'close');
  }
  await server.call();
});

test('CVE-2022-24726 GHSA-86vr-4wcv-mm9w a caller who has proved nothing may send 1 MiB, one who has 4 MiB', async () => {
  await using server = await serve();
  const large = { agent_version: 'x'.repeat(2 << 20) };
  const svid = agentOf(ca);
  const known = server.channel({ svid: () => svid });
  await known.unary(agents, 'PostStatus', large);
  known.close();
  const nobody = server.channel();
  await nobody.unary(agents, 'PostStatus', { agent_version: 'x'.repeat(1 << 19) });
  assert.equal((await faultOf(nobody.unary(agents, 'PostStatus', large))).status, Status.RESOURCE_EXHAUSTED);
  nobody.close();
});

test('an address that is taken, or is not ours, is a sentence of its own', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as { port: number };
  await assert.rejects(
    serve({ at: { host: '127.0.0.1', port } }),
    (fault: Fault) => fault.code === 'state/refused' && /is taken by another program$/.test(fault.message),
  );
  other.close();
  await assert.rejects(
    serve({ at: { host: '203.0.113.1', port: 0 } }),
    (fault: Fault) =>
      fault.code === 'config/invalid' && /^cannot listen on "203.0.113.1:0": EADDRNOTAVAIL$/.test(fault.message),
  );
});

test('a server that is not there is unavailable, by its address', async () => {
  const server = await serve();
  const channel = server.channel();
  await server.serving.close(0);
  const fault = await faultOf(channel.unary(agents, 'CountAgents', {}));
  assert.equal(fault.code, 'peer/unavailable');
  assert.match(fault.message, /^cannot reach "127\.0\.0\.1:\d+": connect ECONNREFUSED/);
  channel.close();
});

test('a name that does not resolve is unavailable, by its name', async () => {
  await using server = await serve();
  const fault = await faultOf(server.call({ host: 'nowhere.invalid' }));
  assert.equal(fault.code, 'peer/unavailable');
  assert.match(fault.message, /nowhere\.invalid/);
});

test('a method of a service that is not served here is UNIMPLEMENTED, so that peers fall back', async () => {
  await using server = await serve();
  const channel = server.channel();
  assert.equal((await faultOf(channel.unary(workload, 'ValidateJWTSVID', {}))).code, 'method/unimplemented');
  assert.equal(
    (await faultOf(channel.bidi('mutual.server.v1.Sync', 'Watch').responses.next())).code,
    'method/unimplemented',
  );
  channel.close();
});

const minutes = 60_000;

test('a connection without a stream ends at its age, and the next call is on another', async () => {
  const clock = drivenClock(now);
  await using own = await serve({ clock, random: middling() });
  const channel = own.channel();
  const call = () => channel.unary(agents, 'CountAgents', {}, { deadlineMs: 60_000 });
  await call();
  await clock.advance(2.9 * minutes);
  await call();
  assert.equal(own.calls[0]!.caller, own.calls[1]!.caller);
  await clock.advance(0.2 * minutes);
  await call();
  assert.notEqual(own.calls[0]!.caller, own.calls[2]!.caller);
  channel.close();
});

test('a connection with a stream stays the only one of its client, until both end at once and are opened anew', async () => {
  const clock = drivenClock(now);
  await using own = await serve({ clock, random: middling() });
  const svid = agentOf(ca);
  const channel = own.channel({ svid: () => svid });
  const call = async () => {
    await channel.unary(agents, 'CountAgents', {}, { deadlineMs: 60_000 });
    return own.calls.at(-1)!.caller;
  };
  const open = async () => {
    const talk = channel.bidi(agents, 'AttestAgent');
    void talk.send({});
    await talk.responses.next();
    return talk;
  };
  const first = await open();
  const caller = await call();
  for (let passed = 0; passed < 117; passed += 3) {
    await clock.advance(3 * minutes);
    assert.equal(await call(), caller, `after ${passed} minutes`);
  }
  const ended = faultOf(first.responses.next());
  await clock.advance(6 * minutes);
  const fault = await ended;
  assert.equal(fault.status, Status.UNAVAILABLE);
  assert.equal(fault.retryAfterMs, 0);
  const second = await open();
  const after = await call();
  assert.notEqual(after, caller);
  // And the stream is on that one too: otherwise it would have ended without a stream by now.
  await clock.advance(4 * minutes);
  assert.equal(await call(), after);
  second.end();
  channel.close();
});

async function socketPath(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'mu-tls-'));
  t.after(() => rm(directory, { recursive: true }));
  return join(directory, 'api.sock');
}
/** The same channel, to a Unix socket. */
const over = (path: string, svid: ReturnType<typeof agentOf>) =>
  connectTls({ path, trustDomain, bundle: () => [ca.der], expect: serverId(trustDomain), svid: () => svid });

test('BE-2 BE-4 the same over a Unix socket: its mode, who is at both ends, and it is gone at the close', async (t) => {
  const path = await socketPath(t);
  const server = await serve({ at: { path, mode: 0o660 } });
  assert.deepEqual([server.serving.address, server.serving.port], [path, 0]);
  assert.equal(statSync(path).mode & 0o777, 0o660);
  const svid = agentOf(ca);
  // Many at once: connections without an address each are a connection of their own.
  const channels = Array.from({ length: 300 }, () => over(path, svid));
  // Some at a time: a connection that is not made within 20 seconds is given up, on a machine that is busy too.
  for (let from = 0; from < channels.length; from += 20)
    await Promise.all(
      channels
        .slice(from, from + 20)
        .map((channel) => channel.unary(agents, 'CountAgents', {}, { deadlineMs: 60_000 })),
    );
  const { caller } = server.calls.at(-1)!;
  assert.ok(caller.kind === 'tls');
  assert.deepEqual([caller.address, caller.svid?.id], ['', agentId]);
  assert.equal(new Set(server.calls.map((call) => call.caller)).size, 300);
  for (const channel of channels) channel.close();

  const strange = over(path, agentOf(stranger));
  assert.equal((await faultOf(strange.unary(agents, 'CountAgents', {}))).status, Status.UNAVAILABLE);
  strange.close();
  await server.serving.close(0);
  assert.throws(() => statSync(path), /ENOENT/);
});

test('a connection may end with the certificate of its caller: its stream says so, and the next call is on another', async (t) => {
  const clock = drivenClock(now);
  const path = await socketPath(t);
  const expired = new Fault('caller/unauthenticated', 'the SVID is over');
  await using server = await serve({ at: { path, mode: 0o600 }, clock, endsWithSvid: expired });
  const channel = over(path, agentOf(ca, { notAfter: now + 5 * minutes }));
  const talk = channel.bidi(agents, 'AttestAgent');
  await talk.send({});
  await talk.responses.next();
  await clock.advance(4.9 * minutes);
  await channel.unary(agents, 'CountAgents', {});
  const ended = faultOf(talk.responses.next());
  await clock.advance(0.2 * minutes);
  assert.equal((await ended).message, expired.message);
  const first = server.calls[0]!.caller;
  await channel.unary(agents, 'CountAgents', {}).catch(() => {});
  assert.notEqual(server.calls.at(-1)!.caller, first);
  channel.close();
});
