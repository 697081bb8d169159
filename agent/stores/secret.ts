/** A secret as stores hold it, with the names that SPIRE's stores use, so that readers of one can read the other's. */
import { createHash } from 'node:crypto';
import { pemEncode } from '../../src/crypto/pem.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { Secret } from './svid-store.ts';

export const certificatesPem = (ders: readonly Buffer[]): string =>
  ders.map((der) => pemEncode('CERTIFICATE', der)).join('');
export const bundlePem = (bundle: Bundle): string =>
  certificatesPem(bundle.x509Authorities.map(({ certificate }) => certificate));
export const crlsPem = (ders: readonly Buffer[]): string => ders.map((der) => pemEncode('X509 CRL', der)).join('');
export const keyPem = (pkcs8: Buffer): string => pemEncode('PRIVATE KEY', pkcs8);

/** Everything but the key. */
function open(secret: Secret) {
  const federated = Object.fromEntries(secret.federated.map((bundle) => [bundle.trustDomain, bundlePem(bundle)]));
  return {
    spiffeID: secret.id,
    x509SVID: certificatesPem(secret.chain),
    bundle: bundlePem(secret.bundle),
    ...(secret.federated.length > 0 && { federatedBundles: federated }),
  };
}

/** The secret as one JSON document. */
export function printSecret(secret: Secret): string {
  const { spiffeID, x509SVID, ...bundles } = open(secret);
  return JSON.stringify({ spiffeID, x509SVID, x509SVIDKey: keyPem(secret.pkcs8), ...bundles });
}

/** Hex. Two secrets of one digest are the same: a certificate names its key, so that the key need not be looked at. */
export const digestOf = (secret: Secret): string =>
  createHash('sha256')
    .update(JSON.stringify({ ...open(secret), ...(secret.crls && { crls: crlsPem(secret.crls) }) }))
    .digest('hex');
