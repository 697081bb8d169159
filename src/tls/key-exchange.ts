/**
 * How a TLS connection agrees on its keys. OpenSSL 3.5 and newer offer and prefer X25519MLKEM768, the hybrid of an elliptic
 * curve and ML-KEM (FIPS 203), by themselves: what is recorded today stays closed to the quantum computers of tomorrow.
 * Where it is required, nothing else is offered or taken, and TLS 1.2, which has no such groups, is out.
 */
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { Fault } from '../errors.ts';

/** The hybrid groups, best liked first. */
const hybrids = ['X25519MLKEM768', 'SecP256r1MLKEM768', 'SecP384r1MLKEM1024'] as const;

let found: readonly string[] | undefined;
/** The hybrid groups that this runtime has. */
function hybridGroups(): readonly string[] {
  found ??= hybrids.filter((name) => {
    try {
      createSecureContext({ ecdhCurve: name });
      return true;
    } catch {
      return false;
    }
  });
  return found;
}

/**
 * The part of a secure context that says it. Throws `config/invalid` where hybrid groups are required and the runtime has
 * none.
 */
export function keyExchange(
  requirePostQuantum: boolean,
  groups: readonly string[] = requirePostQuantum ? hybridGroups() : [],
): SecureContextOptions {
  if (!requirePostQuantum) return { minVersion: 'TLSv1.2' };
  if (groups.length === 0) {
    throw new Fault(
      'config/invalid',
      'tls.requirePostQuantum is set, and this Node has no hybrid post-quantum groups',
      {
        hint: 'Run Node 24 or newer with OpenSSL 3.5 or newer; `mutual version --features` shows what it has.',
      },
    );
  }
  return { minVersion: 'TLSv1.3', ecdhCurve: groups.join(':') };
}
