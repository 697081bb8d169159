/** Bundles as text: PEM of the X.509 authorities, or the SPIFFE bundle format; and read back. */

import { Fault } from '../src/errors.ts';
import { parseBundle, parseBundlePem, printBundle, printBundlePem } from '../src/spiffe/bundle-jwks.ts';
import type { TrustDomain } from '../src/spiffe/id.ts';
import { bundleFromWire, bundleToWire, type WireBundle } from '../src/wire/bundle.ts';
import type { Message } from './caller.ts';
import { choice, withDefault } from './flags.ts';

export const bundleFormat = withDefault(
  choice('FORMAT', ['pem', 'spiffe'], 'PEM certificates, or the SPIFFE bundle format with the JWT keys too'),
  'pem',
);

/** Prints a bundle as the server gave it, ending in a newline. */
export function bundleText(wire: WireBundle, format: 'pem' | 'spiffe'): string {
  const bundle = bundleFromWire(wire);
  const text = format === 'pem' ? printBundlePem(bundle) : printBundle(bundle);
  return text.endsWith('\n') || text === '' ? text : `${text}\n`;
}

/** Reads a bundle into a message. Throws `bundle/invalid`. */
export function bundleMessage(text: string, trustDomain: TrustDomain, format: 'pem' | 'spiffe'): Message {
  try {
    return bundleToWire(format === 'pem' ? parseBundlePem(text, trustDomain) : parseBundle(text, trustDomain));
  } catch (error) {
    if (!(error instanceof Fault) || error.hint !== undefined) throw error;
    const read = format === 'pem' ? 'PEM certificates' : 'a SPIFFE bundle';
    throw new Fault(error.code, error.message, {
      hint: `It was read as ${read}; the format flag takes pem and spiffe.`,
      cause: error,
    });
  }
}
