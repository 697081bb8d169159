import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Status } from '../../../src/errors.ts';
import { callMetrics } from '../../../src/observe/calls.ts';
import { noMetrics, prometheusMetrics } from '../../../src/observe/metrics.ts';

test('counters, gauges and histograms come out in the format of Prometheus', async () => {
  const metrics = await prometheusMetrics('server', '1.2.3');
  metrics.counter('things_total', 'Things.', ['kind']).add({ kind: 'a' }, 2);
  metrics.counter('things_total', 'Things.', ['kind']).add({ kind: 'a' });
  metrics.gauge('level', 'Level.').set(7);
  let read = 1;
  metrics.measured('measured', 'Read when collected.', () => read);
  metrics.histogram('wait_seconds', 'Wait.', [0.1, 1]).observe(0.5);
  read = 5;
  const text = await metrics.text();
  assert.match(text, /^mutual_info\{program="server",version="1\.2\.3"\} 1$/m);
  assert.match(text, /^mutual_things_total\{kind="a"\} 3$/m);
  assert.match(text, /^mutual_level 7$/m);
  assert.match(text, /^mutual_measured 5$/m);
  assert.match(text, /^mutual_wait_seconds_bucket\{le="0\.1"\} 0$/m);
  assert.match(text, /^mutual_wait_seconds_bucket\{le="1"\} 1$/m);
  assert.match(text, /^process_resident_memory_bytes \d+$/m);
  assert.match(metrics.contentType, /^text\/plain; version=0\.0\.4/);
});

test('two collectors do not share anything', async () => {
  const [one, two] = await Promise.all([prometheusMetrics('server', '1'), prometheusMetrics('agent', '1')]);
  one.counter('x_total', 'X.').add();
  two.counter('x_total', 'X.').add({}, 5);
  assert.match(await one.text(), /^mutual_x_total 1$/m);
});

test('calls are counted by service, method and code, with their length', async () => {
  const metrics = await prometheusMetrics('server', '1');
  const done = callMetrics(metrics);
  done('/spire.api.server.entry.v1.Entry/ListEntries', Status.OK, 3);
  done('/spire.api.server.entry.v1.Entry/ListEntries', Status.PERMISSION_DENIED, 1);
  done('/SpiffeWorkloadAPI/FetchX509SVID', 99, 1);
  const text = await metrics.text();
  const labels = 'service="spire.api.server.entry.v1.Entry",method="ListEntries"';
  assert.ok(text.includes(`mutual_rpc_calls_total{${labels},code="OK"} 1`));
  assert.ok(text.includes(`mutual_rpc_calls_total{${labels},code="PERMISSION_DENIED"} 1`));
  assert.ok(
    text.includes('mutual_rpc_calls_total{service="SpiffeWorkloadAPI",method="FetchX509SVID",code="UNKNOWN"} 1'),
  );
  assert.ok(text.includes(`mutual_rpc_duration_seconds_bucket{le="0.0025",${labels}} 1`), text);
});

test('without a collector everything is counted into nothing', () => {
  noMetrics.counter('x', 'X.').add();
  noMetrics.gauge('x', 'X.').set(1);
  noMetrics.histogram('x', 'X.', [1]).observe(1);
  noMetrics.measured('x', 'X.', () => 1);
  callMetrics(noMetrics)('/a/b', 0, 1);
});
