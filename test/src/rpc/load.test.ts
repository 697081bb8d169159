/** The wire contracts: what is in proto/ can be loaded, and messages look as they should. */
import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { test } from 'node:test';
import { loadService, messageCodec, packageFiles, printDescriptor, protoDirectory } from '../../../src/rpc/load.ts';
import { protobuf } from '../../../src/rpc/protobuf.ts';
import { partsOf } from '../../../src/rpc/stored-contracts.ts';

const services: Record<string, number> = {
  SpiffeWorkloadAPI: 7,
  'grpc.health.v1.Health': 3,
  'mutual.server.v1.Rotation': 3,
  'mutual.server.v1.Sync': 2,
  'spire.agent.debug.v1.Debug': 1,
  'spire.api.agent.logger.v1.Logger': 3,
  'spire.api.server.agent.v1.Agent': 9,
  'spire.api.server.bundle.v1.Bundle': 11,
  'spire.api.server.debug.v1.Debug': 1,
  'spire.api.server.entry.v1.Entry': 8,
  'spire.api.server.localauthority.v1.LocalAuthority': 17,
  'spire.api.server.logger.v1.Logger': 3,
  'spire.api.server.svid.v1.SVID': 7,
  'spire.api.server.trustdomain.v1.TrustDomain': 6,
};

test('WA-5 every service has its methods and no others', () => {
  for (const [name, count] of Object.entries(services)) {
    const methods = Object.entries(loadService(name));
    assert.equal(methods.length, count, name);
    for (const [method, { path }] of methods) assert.equal(path, `/${name}/${method}`);
  }
});

test('the kinds of the methods are those of the contract', () => {
  const kinds = (service: string, ...methods: string[]): unknown[] =>
    methods.map((method) => {
      const { requestStream, responseStream } = loadService(service)[method] ?? {};
      return [requestStream, responseStream];
    });
  assert.deepEqual(kinds('SpiffeWorkloadAPI', 'FetchX509SVID', 'FetchJWTSVID', 'FetchWITSVID'), [
    [false, true],
    [false, false],
    [false, true],
  ]);
  assert.deepEqual(kinds('spire.api.server.agent.v1.Agent', 'AttestAgent', 'RenewAgent'), [
    [true, true],
    [false, false],
  ]);
  assert.deepEqual(kinds('spire.api.server.entry.v1.Entry', 'SyncAuthorizedEntries'), [[true, true]]);
  assert.deepEqual(kinds('mutual.server.v1.Sync', 'Watch'), [[true, true]]);
});

test('every file under proto/ belongs to a package that can be loaded', () => {
  const found = globSync('**/*.proto', { cwd: protoDirectory as string, exclude: ['gen/**'] }).sort();
  assert.deepEqual(Object.values(packageFiles).flat().sort(), found);
});

test('a name without a contract is refused', () => {
  assert.throws(() => loadService('spire.api.server.nothing.v1.Nothing'), /no contract/);
  assert.throws(() => messageCodec('spire.api.types.Nothing'));
});

test('a message is a plain object: numbers of 64 bits as text, enums by name, absent messages null, bytes as Buffer', () => {
  const codec = messageCodec('spire.api.types.Bundle');
  const message = codec.decode(
    codec.encode({
      sequence_number: '18446744073709551615',
      x509_authorities: [{ asn1: Buffer.from([1, 2]) }],
      refresh_hint: 5,
    }),
  );
  assert.deepEqual(message, {
    trust_domain: '',
    x509_authorities: [{ asn1: Buffer.from([1, 2]), tainted: false }],
    jwt_authorities: [],
    refresh_hint: '5',
    sequence_number: '18446744073709551615',
    wit_authorities: [],
  });
  const match = messageCodec('spire.api.types.SelectorMatch');
  assert.deepEqual(match.decode(match.encode({ match: 'MATCH_SUPERSET' })), { selectors: [], match: 'MATCH_SUPERSET' });
});

test('a oneof holds the name of its set field', () => {
  const codec = messageCodec('spire.api.server.agent.v1.AttestAgentRequest');
  assert.deepEqual(codec.decode(codec.encode({ challenge_response: Buffer.from('x') })), {
    challenge_response: Buffer.from('x'),
    step: 'challenge_response',
  });
  const entry = messageCodec('spire.api.types.Entry');
  assert.equal(entry.decode(entry.encode({})).additional_attributes, undefined);
  assert.deepEqual(entry.decode(entry.encode({ additional_attributes: {} })).additional_attributes, {
    disable_x509_svid_prefetch: false,
    jwt_svid_include_jti: false,
  });
});

test('field numbers are on the wire as SPIRE has them', () => {
  const hex = (name: string, message: object): string => messageCodec(name).encode(message).toString('hex');
  assert.equal(
    hex('spire.api.types.Entry', {
      jwt_svid_ttl: 1,
      hint: 'h',
      created_at: 2,
      additional_attributes: { jwt_svid_include_jti: true },
    }),
    '6801720168780282010210 01'.replace(' ', ''),
  );
  assert.equal(hex('spire.api.types.Bundle', { wit_authorities: [{ key_id: 'k' }] }), '320312016b');
  assert.equal(hex('spire.api.types.PermissionDeniedDetails', { reason: 'AGENT_MUST_REATTEST' }), '0805');
  assert.equal(
    hex('spire.api.server.bundle.v1.AppendBundleRequest', { output_mask: { wit_authorities: true } }),
    '1a023001',
  );
  assert.equal(hex('spire.api.server.bundle.v1.BatchDeleteFederatedBundleRequest', { mode: 'DISSOCIATE' }), '1002');
  assert.equal(
    hex('X509SVIDResponse', { svids: [{ hint: 'h' }], federated_bundles: { 'spiffe://t': Buffer.from([9]) } }),
    '0a032a01681a0f0a0a7370696666653a2f2f74120109',
  );
  assert.equal(hex('mutual.server.v1.WatchResponse', { removed_trust_domains: ['t'], complete: true }), '2001420174');
});

const packageOf = (service: string): string => service.slice(0, Math.max(service.lastIndexOf('.'), 0));

test('of what a build stores, each package is complete with those it needs, and is on the wire as the sources are', () => {
  const text = printDescriptor();
  for (const name of Object.keys(packageFiles)) {
    const root = new (protobuf().Root)();
    partsOf(text, root)(name);
    for (const service of Object.keys(services).filter((each) => packageOf(each) === name))
      assert.equal(root.lookupService(service).methodsArray.length, services[service], service);
  }
  const root = new (protobuf().Root)();
  const take = partsOf(text, root);
  take('spire.api.server.entry.v1');
  take('spire.api.server.entry.v1');
  const message = {
    entries: [
      {
        id: 'a',
        parent_id: { trust_domain: 't', path: '/p' },
        selectors: [{ type: 'k', value: 'v' }],
        x509_svid_ttl: 5,
      },
    ],
  };
  const name = 'spire.api.server.entry.v1.BatchCreateEntryRequest';
  const type = root.lookupType(name);
  assert.deepEqual(type.encode(type.fromObject(message)).finish(), messageCodec(name).encode(message));
  assert.throws(() => take('spire.api.nobody'), /no contract of the package "spire.api.nobody"/);
});

test('a Struct comes out as protobuf spells it', () => {
  const codec = messageCodec('ValidateJWTSVIDResponse');
  const claims = {
    fields: {
      sub: { stringValue: 'spiffe://t/w' },
      exp: { numberValue: 12 },
      aud: { listValue: { values: [{ stringValue: 'a' }] } },
    },
  };
  const { claims: read } = codec.decode(codec.encode({ spiffe_id: 'spiffe://t/w', claims }));
  assert.equal(read.fields.sub.stringValue, 'spiffe://t/w');
  assert.equal(read.fields.exp.numberValue, 12);
  assert.equal(read.fields.aud.listValue.values[0].stringValue, 'a');
});
