/** Expectations of refusals. */
import assert from 'node:assert/strict';
import { Fault, type FaultCode } from '../../src/errors.ts';

/** A matcher for `assert.throws` and `assert.rejects`: a Fault of this code whose message matches. */
export function fault(code: FaultCode, message: RegExp = /./): (thrown: unknown) => true {
  return (thrown) => {
    assert.ok(thrown instanceof Fault, `expected a Fault, got ${String(thrown)}`);
    assert.equal(thrown.code, code, thrown.message);
    assert.match(thrown.message, message);
    return true;
  };
}
