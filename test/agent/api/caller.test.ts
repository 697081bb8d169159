import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noIdentity } from '../../../agent/api/caller.ts';
import { makeSelector } from '../../../src/spiffe/selector.ts';

test('a refusal names the selectors of the caller, and of variables of its container the name alone', () => {
  const selectors = [
    makeSelector('docker', 'env:PASSWORD=canary\nsecond line'),
    makeSelector('docker', 'label:env:a=b'),
    makeSelector('unix', 'uid:7'),
  ];
  const fault = noIdentity(selectors, undefined);
  assert.match(fault.message, /docker:env:PASSWORD=\.\.\. docker:label:env:a=b unix:uid:7/);
  assert.doesNotMatch(`${fault.message}${fault.hint}`, /canary|second line/);
  assert.match(noIdentity(selectors.slice(0, 1), undefined).hint ?? '', /--selector docker:env:PASSWORD=\.\.\.$/);
});
