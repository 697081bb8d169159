/**
 * join_token: the payload is a token that an operator made. It is consumed in the same transaction that records the
 * node, so that of many callers with one token exactly one gets in.
 */
import { Fault } from '../../src/errors.ts';
import { makeId } from '../../src/spiffe/id.ts';
import type { AttestorPorts, NodeAttestor } from './methods.ts';

const longestToken = 255;

export function joinToken({ trustDomain, store, clock }: AttestorPorts): NodeAttestor {
  return async (payload) => {
    const value = payload.toString('utf8');
    if (value === '' || value.length > longestToken || !/^[A-Za-z0-9._-]+$/.test(value)) throw missing();
    const token = await store.tokens.get(value);
    if (!token) throw missing();
    if (token.expiresAt * 1000 <= clock.now()) throw expired();
    return {
      id: makeId(trustDomain, `/spire/agent/join_token/${value}`),
      selectors: [],
      canReattest: false,
      token: value,
    };
  };
}

/** The refusals name no token: it is a secret until it is used. */
export function missing(): Fault {
  return new Fault('input/invalid', 'failed to attest: join token does not exist or has already been used', {
    hint: 'Make a new one with `mutual token create`.',
  });
}

export function expired(): Fault {
  return new Fault('input/invalid', 'join token expired', { hint: 'Make a new one with `mutual token create`.' });
}
