/** What a broker may mean by a workload: the standard's two references, whole and well-formed, and nothing else. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type Reference, readReference, referenceText, referenceTypes } from '../../../agent/broker/reference.ts';
import { type Fault, Status } from '../../../src/errors.ts';
import { messageCodec } from '../../../src/rpc/load.ts';

const uid = 'a1b2c3d4-e5f6-7890-abcd-ef1234567890';
const pods = { plural: 'pods', group: 'core' };
const key = { namespace: 'shop', name: 'web-7d9c.x2' };

const packed = (type: string, message: object, prefix = 'type.googleapis.com/') => ({
  reference: { type_url: `${prefix}${type}`, value: messageCodec(type).encode(message) },
});
const process = (pid: number) => packed('spiffe.broker.WorkloadPIDReference', { pid });
const object = (message: object) => packed('spiffe.broker.KubernetesObjectReference', message);

test('BR-3 BR-6 BR-7 BR-8 a process by its pid, a pod by key, by UID, or by both', () => {
  const cases: [ReturnType<typeof process>, Reference, string][] = [
    [process(1), { kind: 'process', pid: 1 }, 'process 1'],
    [packed('spiffe.broker.WorkloadPIDReference', { pid: 7 }, 'other.host/'), { kind: 'process', pid: 7 }, 'process 7'],
    [object({ type: pods, key }), { kind: 'pod', key }, 'pod shop/web-7d9c.x2'],
    [object({ type: pods, uid: uid.toUpperCase() }), { kind: 'pod', uid }, `the pod with UID ${uid}`],
    [object({ type: pods, key, uid }), { kind: 'pod', key, uid }, `pod shop/web-7d9c.x2 with UID ${uid}`],
  ];
  for (const [wire, reference, text] of cases) {
    assert.deepEqual(readReference(wire), reference);
    assert.equal(referenceText(readReference(wire)), text);
  }
});

test('BR-3 BR-7 BR-8 BR-15 BR-18 whatever is not one is INVALID_ARGUMENT with its reason, and says what was expected', () => {
  const cases: [Parameters<typeof readReference>[0], RegExp][] = [
    [null, /names no workload/],
    [{ reference: null }, /names no workload/],
    [{ reference: { type_url: '', value: Buffer.alloc(0) } }, /names no workload/],
    [
      { reference: { type_url: 'type.googleapis.com/acme.Workload', value: Buffer.alloc(3) } },
      /acme.Workload.*not understood/,
    ],
    [{ reference: { type_url: 'type.googleapis.com/toString', value: Buffer.alloc(0) } }, /not understood/],
    [
      { reference: { type_url: 'a/spiffe.broker.WorkloadPIDReference', value: Buffer.from('ffff', 'hex') } },
      /bytes cannot be read/,
    ],
    [process(0), /process id 0 is not valid/],
    [process(-7), /process id -7 is not valid/],
    [object({ key }), /kind of the Kubernetes object is not whole/],
    [object({ type: { plural: 'pods' }, key }), /not whole: plural "pods", group ""/],
    [object({ type: { group: 'core' }, key }), /not whole: plural ""/],
    [object({ type: { plural: 'deployments', group: 'apps' }, key }), /"deployments" in group "apps" are not resolved/],
    [object({ type: { plural: 'pods', group: 'v1' }, key }), /"pods" in group "v1" are not resolved/],
    [object({ type: pods }), /neither its key nor its UID/],
    [object({ type: pods, key: { name: 'web' } }), /"" is not a namespace/],
    [object({ type: pods, key: { namespace: 'a.b', name: 'web' } }), /"a.b" is not a namespace/],
    [object({ type: pods, key: { namespace: 'shop' } }), /"" is not the name of a pod/],
    [object({ type: pods, key: { namespace: 'shop', name: '../web' } }), /"..\/web" is not the name/],
    [object({ type: pods, key: { namespace: 'shop', name: 'w'.repeat(254) } }), /is not the name/],
    [object({ type: pods, uid: 'web' }), /"web" is not a UID/],
    [object({ type: pods, key, uid: `${uid}0` }), /is not a UID/],
  ];
  for (const [wire, text] of cases) {
    assert.throws(
      () => readReference(wire),
      (fault: Fault) => {
        assert.match(fault.message, text);
        assert.equal(fault.status, Status.INVALID_ARGUMENT);
        assert.deepEqual([fault.info?.reason, fault.info?.domain], ['WORKLOAD_REFERENCE_INVALID', 'spiffe.io']);
        return true;
      },
    );
  }
});

test('BR-2 BR-10 the types are the two of the standard, and their full names stand in the page on brokers', () => {
  assert.deepEqual(referenceTypes, ['spiffe.broker.WorkloadPIDReference', 'spiffe.broker.KubernetesObjectReference']);
  const page = readFileSync(new URL('../../../docs/broker.md', import.meta.url), 'utf8');
  for (const type of referenceTypes) assert.ok(page.includes(`\`${type}\``), type);
});

test('the messages of the Broker API are those of the Workload API, field by field and number by number', () => {
  const bytes = Buffer.from('x');
  const svid = { spiffe_id: 'a', x509_svid: bytes, x509_svid_key: bytes, bundle: bytes, hint: 'h' };
  const samples: [string, string, object][] = [
    [
      'X509SVIDResponse',
      'SubscribeToX509SVIDResponse',
      { svids: [svid], crl: [bytes], federated_bundles: { b: bytes } },
    ],
    ['X509BundlesResponse', 'SubscribeToX509BundlesResponse', { crl: [bytes], bundles: { b: bytes } }],
    ['JWTSVIDResponse', 'FetchJWTSVIDResponse', { svids: [{ spiffe_id: 'a', svid: 't', hint: 'h' }] }],
    ['JWTBundlesResponse', 'SubscribeToJWTBundlesResponse', { bundles: { b: bytes } }],
  ];
  for (const [ofWorkload, ofBroker, message] of samples) {
    const sent = messageCodec(ofWorkload).encode(message);
    assert.deepEqual(messageCodec(`spiffe.broker.${ofBroker}`).encode(message), sent);
    assert.deepEqual(messageCodec(`spiffe.broker.${ofBroker}`).decode(sent), message);
  }
});
