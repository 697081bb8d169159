/** The protocol of the two kinds of stream: versions, nonces, replies, subscriptions and changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Fault } from '../../../src/errors.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { testAuthority } from '../../support/ca.ts';
import { id } from '../support/agent-rig.ts';
import { accept, envoyNode, openStream, reject, type SdsRigOptions, sdsRig, secretUrl } from '../support/sds-rig.ts';

const minute = 60_000;
const other = parseTrustDomain('other.org');
const own = 'spiffe://example.org';

/** An agent with entries a and b, and one stream. */
async function opened(method: 'StreamSecrets' | 'DeltaSecrets', options: SdsRigOptions = {}) {
  const rig = await sdsRig(options);
  rig.server.put({ id: 'a' });
  rig.server.put({ id: 'b' });
  await rig.start();
  const put = async (entry: string, more: object = {}): Promise<void> => {
    rig.server.put({ id: entry, ...more });
    await rig.clock.advance(0);
  };
  const federate = async (minutes = 0): Promise<Bundle> => {
    const bundle = {
      ...testAuthority({ trustDomain: other, now: rig.clock.now() + minutes }).bundle(),
      trustDomain: other,
    };
    rig.server.putBundle(bundle);
    await rig.clock.advance(0);
    return bundle;
  };
  return { ...rig, stream: openStream(rig.envoy(), method, rig), put, federate };
}
const world = (options?: SdsRigOptions) => opened('StreamSecrets', options);
const delta = (options?: SdsRigOptions) => opened('DeltaSecrets', options);

test('an answer holds what was asked for, with a version and a nonce of its own; accepting it brings nothing more', async () => {
  const { stream, stop } = await world();
  await stream.send({ resource_names: ['default', 'ROOTCA'], node: envoyNode(), type_url: secretUrl });
  const answer = await stream.next();
  assert.deepEqual(answer.names, ['default', 'ROOTCA']);
  assert.ok(answer.version_info !== '' && answer.nonce !== '');
  await stream.send(accept(answer));
  assert.ok(await stream.isSilent());
  stop();
});

test('each change of what was asked for is a new version in a new answer with all of it, and no other change is', async () => {
  const { stream, clock, put, federate, stop } = await world();
  await stream.send({ resource_names: ['default', 'ROOTCA'], node: envoyNode() });
  const first = await stream.next();
  await stream.send(accept(first));
  await put('c');
  await put('b', { federatesWith: [other] });
  await federate();
  assert.ok(await stream.isSilent(), 'another identity and a foreign bundle');
  await clock.advance(31 * minute);
  const second = await stream.next();
  assert.deepEqual(second.names, ['default', 'ROOTCA']);
  assert.notEqual(second.version_info, first.version_info);
  assert.notEqual(second.nonce, first.nonce);
  assert.notEqual(second.secrets.default.chain, first.secrets.default.chain);
  assert.deepEqual(second.secrets.ROOTCA.domains, first.secrets.ROOTCA.domains);
  stop();
});

test('the node is told once a stream and holds for all of it', async () => {
  const { stream, server, clock, stop } = await world();
  await stream.send({ resource_names: ['ROOTCA'], node: envoyNode() });
  const first = await stream.next();
  assert.ok(first.secrets.ROOTCA.domains);
  await stream.send(accept(first));
  const bundle = server.authority.bundle();
  const next = testAuthority({ now: clock.now() }).bundle();
  server.putBundle({ ...bundle, x509Authorities: [...bundle.x509Authorities, ...next.x509Authorities] });
  await clock.advance(0);
  const second = await stream.next();
  assert.equal(second.secrets.ROOTCA.domains['example.org'].match(/BEGIN/g).length, 2);
  stop();
});

test('a foreign bundle reaches who asked for all, and leaves with the federation', async () => {
  const { stream, put, federate, stop } = await world();
  await put('a', { federatesWith: [other] });
  await stream.send({ resource_names: ['ALL'], node: envoyNode() });
  const domains = async (): Promise<string[]> => Object.keys((await stream.next()).secrets.ALL.domains);
  assert.deepEqual(await domains(), ['example.org']);
  await federate();
  assert.deepEqual(await domains(), ['example.org', 'other.org']);
  await put('a', { federatesWith: [] });
  assert.deepEqual(await domains(), ['example.org']);
  stop();
});

test('what a client rejects is not sent again, and is logged once however often the client says so', async () => {
  const { stream, clock, lines, stop } = await world();
  await stream.send({ resource_names: ['default', 'ROOTCA'] });
  const first = await stream.next();
  for (let round = 0; round < 100; round++) await stream.send(reject(first, `no good ${round}`));
  assert.ok(await stream.isSilent());
  assert.equal(lines.length, 1);
  assert.deepEqual(
    [lines[0].event, lines[0].names, lines[0].why, lines[0].pid, lines[0].uid, lines[0].level],
    ['SDS client rejected its secrets', ['"default"', '"ROOTCA"'], '"no good 0"', 4242, 1000, 'warn'],
  );
  await clock.advance(31 * minute);
  const second = await stream.next();
  assert.notEqual(second.version_info, first.version_info);
  await stream.send(reject(second, 'nor this'));
  assert.ok(await stream.isSilent());
  assert.deepEqual(
    lines.map(({ why }) => why),
    ['"no good 0"', '"nor this"'],
    'a new content may be rejected anew',
  );
  stop();
});

test('a client that rejects, ends its stream and comes back is answered each time and logged once', async () => {
  const rig = await world();
  for (let round = 0; round < 20; round++) {
    const stream = openStream(rig.envoy(), 'StreamSecrets', rig);
    await stream.send({ resource_names: ['default'] });
    await stream.send(reject(await stream.next(), 'no good'));
    assert.ok(await stream.isSilent());
    await stream.close();
  }
  assert.equal(rig.lines.length, 1);
  rig.stop();
});

test('a client may reject and ask for other names in one request', async () => {
  const { stream, stop } = await world();
  await stream.send({ resource_names: ['default'] });
  await stream.send(reject(await stream.next(), 'no good', ['default', 'ROOTCA']));
  assert.deepEqual((await stream.next()).names, ['default', 'ROOTCA']);
  stop();
});

test('a reply to an answer that another has followed is ignored, names and all', async () => {
  const { stream, clock, lines, stop } = await world();
  await stream.send({ resource_names: ['default'] });
  const first = await stream.next();
  await clock.advance(31 * minute);
  const second = await stream.next();
  await stream.send(reject(first, 'late', ['default', 'ROOTCA']));
  await stream.send({ ...accept(first), resource_names: [id('/b')] });
  assert.ok(await stream.isSilent());
  assert.deepEqual(lines, []);
  await stream.send(accept(second, ['default', 'ROOTCA']));
  assert.deepEqual((await stream.next()).names, ['default', 'ROOTCA']);
  stop();
});

test('a request without a nonce, sent before the first answer was seen, counts', async () => {
  const { stream, stop } = await world();
  await stream.send({ resource_names: ['default'] });
  await stream.send({ resource_names: ['default', id('/b')] });
  assert.deepEqual((await stream.next()).names, ['default']);
  assert.deepEqual((await stream.next()).names, ['default', id('/b')]);
  stop();
});

test('the first request of a stream is answered whatever version and nonce it brings from another stream', async () => {
  const rig = await world();
  await rig.stream.send({ resource_names: ['default'] });
  const first = await rig.stream.next();
  const again = openStream(rig.envoy(), 'StreamSecrets', rig);
  await again.send({ ...accept(first), response_nonce: '77' });
  assert.equal((await again.next()).version_info, first.version_info);
  rig.stop();
});

test('names more: all are sent; names fewer: nothing is; a name again after it was let go: all are sent', async () => {
  const { stream, stop } = await world();
  await stream.send({ resource_names: ['default'] });
  const one = await stream.next();
  await stream.send(accept(one, ['default', 'ROOTCA', 'ROOTCA']));
  const two = await stream.next();
  assert.deepEqual(two.names, ['default', 'ROOTCA']);
  await stream.send(accept(two, ['ROOTCA', 'default']));
  assert.ok(await stream.isSilent(), 'their order means nothing');
  await stream.send(accept(two, []));
  assert.ok(await stream.isSilent(), 'no names after some are none, not all');
  await stream.send(accept(two, ['default', 'ROOTCA']));
  assert.deepEqual((await stream.next()).names, ['default', 'ROOTCA']);
  stop();
});

test('no names at first are all, and stay so with each accepted answer', async () => {
  const { stream, put, stop } = await world();
  await stream.send({ type_url: secretUrl });
  const first = await stream.next();
  assert.deepEqual(first.names, [own, id('/a'), id('/b')]);
  await stream.send(accept(first, []));
  assert.ok(await stream.isSilent());
  await put('c');
  assert.deepEqual((await stream.next()).names, [own, id('/a'), id('/b'), id('/c')]);
  stop();
});

test('a name that stands for nothing is left out and logged once; alone it brings no answer until it stands for something', async () => {
  const { stream, put, lines, clock, stop } = await world();
  await stream.send({ resource_names: [id('/c')] });
  assert.ok(await stream.isSilent(), 'Envoy rejects an answer with nothing in it');
  await clock.advance(31 * minute);
  assert.equal(lines.length, 1);
  assert.deepEqual(lines[0].names, [`"${id('/c')}"`]);
  assert.deepEqual(lines[0].ids, [id('/a'), id('/b')]);
  await put('c');
  assert.deepEqual((await stream.next()).names, [id('/c')]);
  stop();
});

test('an identity that is lost is left out at once, and the last one ends the stream with PERMISSION_DENIED', async () => {
  const { stream, server, clock, stop } = await world();
  await stream.send({ resource_names: [id('/a'), id('/b')] });
  await stream.next();
  server.remove('a');
  await clock.advance(0);
  assert.deepEqual((await stream.next()).names, [id('/b')]);
  server.remove('b');
  await clock.advance(0);
  await assert.rejects(
    stream.next(),
    (fault: Fault) => fault.status === 7 && fault.message.startsWith('no identity issued'),
  );
  stop();
});

for (const method of ['StreamSecrets', 'DeltaSecrets'] as const) {
  test(`${method}: a stream that has asked for nothing is told nothing, and ends when its caller ends it`, async () => {
    const { stream, clock, stop } = await opened(method);
    await clock.advance(31 * minute);
    assert.ok(await stream.isSilent());
    stream.end();
    assert.equal(await stream.next(), undefined);
    stop();
  });

  test(`${method}: whoever ends its side is answered what it had asked before`, async () => {
    const { stream, stop } = await opened(method);
    await stream.send({ resource_names: ['default'], resource_names_subscribe: ['default'] });
    stream.end();
    assert.deepEqual((await stream.next()).names, ['default']);
    assert.equal(await stream.next(), undefined);
    stop();
  });

  test(`${method}: an SVID on its way is waited for without a word, what is there is sent`, async () => {
    const rig = await sdsRig();
    rig.server.put({ id: 'a' });
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.server.instead.set('BatchNewX509SVID', async (usual) => promise.then(usual));
    await rig.start();
    const names = (...all: string[]) => ({ resource_names: all, resource_names_subscribe: all });
    const alone = openStream(rig.envoy(), method, rig);
    await alone.send(names('default'));
    const both = openStream(rig.envoy(), method, rig);
    await both.send(names('default', 'ROOTCA'));
    assert.deepEqual((await both.next()).names, ['ROOTCA']);
    assert.ok(await alone.isSilent());
    resolve();
    await rig.clock.advance(0);
    assert.deepEqual((await alone.next()).names, ['default']);
    assert.deepEqual((await both.next()).names, method === 'DeltaSecrets' ? ['default'] : ['default', 'ROOTCA']);
    assert.deepEqual(rig.lines, []);
    rig.stop();
  });
}

const replied = (answer: { nonce: string }, more: object = {}) => ({ response_nonce: answer.nonce, ...more });

test('delta: an answer holds what is new to the client, each with a version, and then what changed alone', async () => {
  const { stream, clock, stop } = await delta();
  await stream.send({ resource_names_subscribe: ['default', 'ROOTCA'], node: envoyNode(), type_url: secretUrl });
  const first = await stream.next();
  assert.deepEqual(first.names, ['default', 'ROOTCA']);
  assert.deepEqual(first.removed_resources, []);
  for (const { name, version } of first.resources) assert.ok(name !== '' && version !== '');
  assert.ok(first.secrets.ROOTCA.domains);
  await stream.send(replied(first));
  assert.ok(await stream.isSilent());
  await clock.advance(31 * minute);
  const second = await stream.next();
  assert.deepEqual(second.names, ['default']);
  assert.notEqual(second.resources[0].version, first.resources[0].version);
  assert.notEqual(second.nonce, first.nonce);
  stop();
});

test('delta: names are added and let go one by one', async () => {
  const { stream, clock, stop } = await delta();
  await stream.send({ resource_names_subscribe: ['default'] });
  const first = await stream.next();
  await stream.send(replied(first, { resource_names_subscribe: [id('/b')] }));
  const second = await stream.next();
  assert.deepEqual(second.names, [id('/b')]);
  await stream.send(replied(second, { resource_names_unsubscribe: ['default', 'never asked'] }));
  assert.ok(await stream.isSilent());
  await clock.advance(31 * minute);
  assert.deepEqual((await stream.next()).names, [id('/b')]);
  stop();
});

test('delta: a name that stands for nothing is told as removed, once, and as a secret when it comes to stand for one', async () => {
  const { stream, server, put, clock, lines, stop } = await delta();
  await stream.send({ resource_names_subscribe: [id('/c'), 'default'] });
  const first = await stream.next();
  assert.deepEqual([first.names, first.removed_resources], [['default'], [id('/c')]]);
  await put('c');
  assert.deepEqual((await stream.next()).names, [id('/c')]);
  server.remove('c');
  await clock.advance(0);
  const third = await stream.next();
  assert.deepEqual([third.names, third.removed_resources], [[], [id('/c')]]);
  await put('d');
  assert.ok(await stream.isSilent());
  assert.equal(lines.length, 1);
  stop();
});

test('delta: what is asked for anew is sent anew, changed or not', async () => {
  const { stream, stop } = await delta();
  await stream.send({ resource_names_subscribe: ['default', 'nobody'] });
  const first = await stream.next();
  await stream.send(replied(first, { resource_names_subscribe: ['default', 'nobody'] }));
  const second = await stream.next();
  assert.deepEqual([second.names, second.removed_resources], [['default'], ['nobody']]);
  stop();
});

test('delta: a client that comes back with what it has is sent what differs from that alone', async () => {
  const rig = await delta();
  await rig.stream.send({ resource_names_subscribe: ['default', 'ROOTCA'] });
  const first = await rig.stream.next();
  const versions = Object.fromEntries(
    first.resources.map(({ name, version }: { name: string; version: string }) => [name, version]),
  );
  const back = async (initial_resource_versions: object) => {
    const stream = openStream(rig.envoy(), 'DeltaSecrets', rig);
    await stream.send({ resource_names_subscribe: ['default', 'ROOTCA'], initial_resource_versions });
    return stream;
  };
  assert.ok(await (await back(versions)).isSilent());
  assert.deepEqual((await (await back({ ...versions, default: 'older' })).next()).names, ['default']);
  assert.deepEqual(await (await back({ ...versions, stranger: '1' })).isSilent(), true, 'it no longer asks for that');
  rig.stop();
});

test('delta: nothing at first or * is everything: what it stops standing for is removed', async () => {
  for (const resource_names_subscribe of [[], ['*']]) {
    const { stream, server, clock, stop } = await delta();
    await stream.send({ resource_names_subscribe, initial_resource_versions: { [id('/gone')]: '1' } });
    const first = await stream.next();
    assert.deepEqual(first.names, [own, id('/a'), id('/b')]);
    assert.deepEqual(first.removed_resources, [id('/gone')]);
    server.remove('b');
    await clock.advance(0);
    const second = await stream.next();
    assert.deepEqual([second.names, second.removed_resources], [[], [id('/b')]]);
    // Let go by name while everything is asked for: it is told of again.
    await stream.send(replied(second, { resource_names_unsubscribe: [id('/a')] }));
    assert.deepEqual((await stream.next()).names, [id('/a')]);
    await stream.send({ resource_names_unsubscribe: ['*'] });
    await clock.advance(31 * minute);
    assert.ok(await stream.isSilent());
    stop();
  }
});

test('delta: what a client rejects is not sent again before it changes, and logged once', async () => {
  const { stream, clock, lines, stop } = await delta();
  await stream.send({ resource_names_subscribe: ['default', 'ROOTCA'] });
  const first = await stream.next();
  const rejection = replied(first, { error_detail: { code: 3, message: 'no good' } });
  for (let round = 0; round < 100; round++) await stream.send(rejection);
  assert.ok(await stream.isSilent());
  assert.deepEqual(
    lines.map(({ names, why, code }) => [names, why, code]),
    [[['"default"', '"ROOTCA"'], '"no good"', 3]],
  );
  await clock.advance(31 * minute);
  assert.deepEqual((await stream.next()).names, ['default']);
  stop();
});

test('delta: the last identity lost ends the stream with PERMISSION_DENIED', async () => {
  const { stream, server, clock, stop } = await delta();
  await stream.send({ resource_names_subscribe: ['default'] });
  await stream.next();
  server.remove('a');
  server.remove('b');
  await clock.advance(0);
  let fault: Fault | undefined;
  for (let answers = 0; fault === undefined && answers < 3; answers++)
    await stream.next().catch((error) => (fault = error));
  assert.equal(fault?.status, 7);
  stop();
});

test('a stream that goes away leaves no follower behind', async () => {
  const rig = await world();
  const before = rig.cache.wanted.size;
  for (let round = 0; round < 50; round++) {
    const stream = openStream(rig.envoy('unix:uid:1000', `unix:gid:${round}`), 'StreamSecrets', rig);
    await stream.send({ resource_names: ['default'] });
    await stream.next();
    await stream.close();
  }
  await rig.clock.advance(0);
  const waiting = rig.clock.waiting;
  rig.server.put({ id: 'b', selectors: [parseSelector('unix:uid:1')] });
  await rig.clock.advance(0);
  assert.equal(rig.cache.wanted.size, before);
  assert.ok(rig.clock.waiting <= waiting + 1);
  rig.stop();
});
