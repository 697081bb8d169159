/** Faults as gRPC statuses and back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metadata } from '@grpc/grpc-js';
import { Fault, type FaultCode, faults, Status } from '../../../src/errors.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import { serviceError } from '../../../src/rpc/service-error.ts';
import { faultOfCall, itemStatus, peerText } from '../../../src/rpc/status.ts';

test('every code of ours travels as its status', () => {
  for (const code of Object.keys(faults) as FaultCode[]) {
    const fault = faultOfCall(serviceError(new Fault(code, 'm')));
    assert.equal(fault.status, faults[code].status, code);
  }
});

test('every status of gRPC, and any other number, becomes a Fault', () => {
  for (const status of Object.values(Status)) {
    const error = Object.assign(new Error('m'), { code: status as number, details: 'm', metadata: new Metadata() });
    assert.equal(faultOfCall(error).status, status);
  }
  assert.equal(
    faultOfCall(Object.assign(new Error('m'), { code: 99, details: 'm', metadata: new Metadata() })).status,
    Status.UNKNOWN,
  );
});

test('a reason is google.rpc.Status with one PermissionDeniedDetails, byte for byte as agents read it', () => {
  const { metadata } = serviceError(new Fault('caller/denied', 'm', { reason: 'AGENT_NOT_ATTESTED' }));
  const trailer = metadata.get('grpc-status-details-bin')[0] as Buffer;
  const url = 'type.googleapis.com/spire.api.types.PermissionDeniedDetails';
  assert.deepEqual(
    trailer,
    Buffer.concat([
      Buffer.from([8, 7, 0x12, 1, 0x6d, 0x1a, url.length + 6, 0x0a, url.length]),
      Buffer.from(url),
      Buffer.from([0x12, 2, 8, 2]),
    ]),
  );
  assert.deepEqual(serviceError(new Fault('caller/denied', 'm')).metadata.getMap(), {});
});

test('a reason that is unknown or cannot be read leaves the status as it is', () => {
  const withTrailer = (trailer: Buffer): unknown => {
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', trailer);
    return Object.assign(new Error('m'), { code: 7, details: 'm', metadata });
  };
  const status = messageCodec('google.rpc.Status');
  const url = 'type.googleapis.com/spire.api.types.PermissionDeniedDetails';
  for (const trailer of [
    Buffer.from('ffffffff', 'hex'),
    status.encode({ details: [{ type_url: url, value: Buffer.from('ff', 'hex') }] }),
    status.encode({ details: [{ type_url: url, value: Buffer.from([8, 99]) }] }),
    status.encode({ details: [{ type_url: url, value: Buffer.alloc(0) }] }),
    status.encode({ details: [{ type_url: 'type.googleapis.com/other', value: Buffer.from([8, 1]) }] }),
  ]) {
    const fault = faultOfCall(withTrailer(trailer));
    assert.deepEqual([fault.status, fault.reason], [Status.PERMISSION_DENIED, undefined]);
  }
});

test('an item of a batch has the code and the text that a call would have had', () => {
  assert.deepEqual(itemStatus(new Fault('thing/exists', 'it exists', { hint: 'Take another.' })), {
    code: 6,
    message: 'it exists. Take another.',
  });
  assert.deepEqual(itemStatus(new TypeError('secret')), { code: 13, message: 'internal error' });
  assert.equal(peerText(new Fault('input/invalid', 'm', { detail: 'secret' })), 'm');
});

test('when to come again travels as RetryInfo, beside a reason or alone; nonsense is as good as none', () => {
  for (const retryAfterMs of [0, 1, 1500, 60_000]) {
    const fault = new Fault('limit/exceeded', 'm', { retryAfterMs, reason: 'AGENT_NOT_ACTIVE' });
    const read = faultOfCall(serviceError(fault));
    assert.equal(read.retryAfterMs, retryAfterMs);
    assert.equal(read.reason, 'AGENT_NOT_ACTIVE');
  }
  assert.equal(faultOfCall(serviceError(new Fault('peer/unavailable', 'm'))).retryAfterMs, undefined);
  const sent = (retry_delay: object) => {
    const value = messageCodec('google.rpc.RetryInfo').encode({ retry_delay });
    const details = [{ type_url: 'type.googleapis.com/google.rpc.RetryInfo', value }];
    const metadata = new Metadata();
    metadata.set('grpc-status-details-bin', messageCodec('google.rpc.Status').encode({ code: 14, details }));
    return faultOfCall(Object.assign(new Error('m'), { code: 14, details: 'm', metadata })).retryAfterMs;
  };
  assert.equal(sent({ seconds: -5 }), 0);
  assert.equal(sent({ seconds: 1e12 }), 300_000);
});

test('BR-18 ErrorInfo travels byte for byte as brokers read it, beside the others, and a peer without it is understood', () => {
  const info = { reason: 'WORKLOAD_NOT_FOUND', domain: 'spiffe.io', metadata: { pid: '7' } };
  const error = serviceError(new Fault('thing/missing', 'm', { info, retryAfterMs: 5 }));
  const trailer = error.metadata.get('grpc-status-details-bin')[0] as Buffer;
  const url = 'type.googleapis.com/google.rpc.ErrorInfo';
  const text = (field: number, value: string) => [(field << 3) | 2, value.length, ...Buffer.from(value)];
  const pair = [...text(1, 'pid'), ...text(2, '7')];
  const value = [...text(1, info.reason), ...text(2, info.domain), 0x1a, pair.length, ...pair];
  const any = [...text(1, url), 0x12, value.length, ...value];
  const expected = Buffer.from([8, 5, ...text(2, 'm'), 0x1a, any.length, ...any]);
  assert.deepEqual(trailer.subarray(0, expected.length), expected);
  const read = faultOfCall(error);
  assert.deepEqual([read.info, read.retryAfterMs], [info, 5]);
  const bare = faultOfCall(serviceError(new Fault('thing/missing', 'm')));
  assert.deepEqual([bare.status, bare.info], [Status.NOT_FOUND, undefined]);
});
