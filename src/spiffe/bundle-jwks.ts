/**
 * Bundles as text: the SPIFFE format, a JWK Set with a few members of its own (Trust Domain and Bundle §4), the plain
 * JWK Set that workloads get, and PEM. What a bundle says of taint and expiry has no place in these formats and is lost.
 */
import { parseCertificate } from '../crypto/certificate.ts';
import { isJsonObject, type Json, parseJsonObject } from '../crypto/json.ts';
import { isTokenKeyKind, publicJwk, spkiOfJwk } from '../crypto/jwk.ts';
import { pemDecode, pemEncode } from '../crypto/pem.ts';
import { Fault, quote } from '../errors.ts';
import type { Bundle, JwtAuthority, X509Authority } from './bundle.ts';
import { parseId, type TrustDomain, trustDomainOf } from './id.ts';

const longest = 4 * 1024 * 1024;
const mostKeys = 4096;
const largestSequence = 2n ** 64n - 1n;
/** `OKP` may stand on a certificate; no token algorithm here uses it. */
const keyKinds = ['EC', 'RSA', 'OKP'];

/**
 * Reads a bundle in SPIFFE format. Entries of a use or key type not known are skipped, as are X.509 entries without a
 * certificate and token keys without a name; what is malformed refuses the whole. Throws `bundle/invalid`.
 */
export function parseBundle(text: string, trustDomain: TrustDomain): Bundle {
  if (text.length > longest) throw refused(trustDomain, `it is longer than ${longest} characters`);
  return readBundle(documentOf(text, trustDomain), trustDomain);
}

/**
 * As `parseBundle`, from JSON already read with its integers exact: a bundle that stands inside another document.
 * Throws `bundle/invalid`.
 */
export function readBundle(document: { readonly [name: string]: Json }, trustDomain: TrustDomain): Bundle {
  const { keys, spiffe_sequence: sequence, spiffe_refresh_hint: refreshHint } = document;
  if (!Array.isArray(keys)) throw refused(trustDomain, 'it has no array "keys"');
  if (keys.length > mostKeys) throw refused(trustDomain, `it has more than ${mostKeys} keys`);
  const x509Authorities = new Map<string, X509Authority>();
  const tokenKeys = { 'jwt-svid': new Map<string, JwtAuthority>(), 'wit-svid': new Map<string, JwtAuthority>() };
  for (const [index, jwk] of keys.entries()) {
    const where = `key ${index + 1}`;
    if (!isJsonObject(jwk)) throw refused(trustDomain, `${where} is not an object`);
    if (!keyKinds.includes(jwk.kty as string)) continue;
    if (jwk.use === 'x509-svid') {
      const certificate = certificateOf(jwk, trustDomain, where);
      if (certificate !== undefined)
        x509Authorities.set(certificate.toString('latin1'), { certificate, tainted: false });
    } else if (jwk.use === 'jwt-svid' || jwk.use === 'wit-svid') {
      const authority = tokenKeyOf(jwk, trustDomain, where);
      if (authority === undefined) continue;
      const same = tokenKeys[jwk.use].get(authority.keyId);
      if (same !== undefined && !same.publicKey.equals(authority.publicKey))
        throw refused(trustDomain, `two keys are called ${quote(authority.keyId)}`);
      tokenKeys[jwk.use].set(authority.keyId, same ?? authority);
    }
  }
  return {
    trustDomain,
    x509Authorities: [...x509Authorities.values()],
    jwtAuthorities: [...tokenKeys['jwt-svid'].values()],
    witAuthorities: [...tokenKeys['wit-svid'].values()],
    refreshHint: Number(wholeNumber(refreshHint, trustDomain, 'spiffe_refresh_hint', BigInt(Number.MAX_SAFE_INTEGER))),
    sequence: wholeNumber(sequence, trustDomain, 'spiffe_sequence', largestSequence),
  };
}

/** Writes a bundle in SPIFFE format, indented, X.509 authorities first. A refresh hint of 0 is left out. */
export function printBundle(bundle: Bundle): string {
  const keys = [
    ...bundle.x509Authorities.map(({ certificate }) => ({
      use: 'x509-svid',
      ...publicJwk(parseCertificate(certificate).spki),
      // Standard base64, not base64url (X509-28).
      x5c: [certificate.toString('base64')],
    })),
    ...bundle.jwtAuthorities.map((authority) => ({
      use: 'jwt-svid',
      kid: authority.keyId,
      ...publicJwk(authority.publicKey),
    })),
    ...bundle.witAuthorities.map((authority) => ({
      use: 'wit-svid',
      kid: authority.keyId,
      ...publicJwk(authority.publicKey),
    })),
  ];
  const list = JSON.stringify(keys, null, 4).replaceAll('\n', '\n    ');
  const hint = bundle.refreshHint === 0 ? '' : `,\n    "spiffe_refresh_hint": ${bundle.refreshHint}`;
  // By hand: JSON.stringify has no integers of 64 bits.
  return `{\n    "keys": ${list},\n    "spiffe_sequence": ${bundle.sequence}${hint}\n}\n`;
}

/** The JWT keys alone as a plain JWK Set, without `use`: what the Workload API hands to JOSE libraries (WA-31). */
export function jwtKeySet(bundle: Bundle): string {
  return keySet(bundle.jwtAuthorities);
}

/** The WIT keys alone as a plain JWK Set, each with its `kid`, without `use` (WA-37). */
export function witKeySet(bundle: Bundle): string {
  return keySet(bundle.witAuthorities);
}

/**
 * Reads the JWK Set that the Workload API gives for a trust domain's WIT keys: entries under another use than `wit-svid`
 * are skipped, and so are those without a name. Throws `bundle/invalid`.
 */
export function parseWitKeySet(text: string, trustDomain: TrustDomain): Bundle {
  if (text.length > longest) throw refused(trustDomain, `it is longer than ${longest} characters`);
  const document = documentOf(text, trustDomain);
  if (!Array.isArray(document.keys)) throw refused(trustDomain, 'it has no array "keys"');
  const keys = document.keys.map((jwk) => (isJsonObject(jwk) ? { ...jwk, use: jwk.use ?? 'wit-svid' } : jwk));
  const named = keys.filter((jwk) => !isJsonObject(jwk) || jwk.use === 'wit-svid');
  return readBundle({ keys: named }, trustDomain);
}

/** Reads the bundles of `WITBundlesResponse`, by SPIFFE ID of the trust domain. Throws `id/invalid`, `bundle/invalid`. */
export function parseWitBundles(bundles: Readonly<Record<string, string>>): Map<TrustDomain, Bundle> {
  return new Map(
    Object.entries(bundles).map(([name, text]) => {
      const domain = trustDomainOf(parseId(name));
      return [domain, parseWitKeySet(text, domain)];
    }),
  );
}

/** Reads certificates in PEM as a bundle of X.509 authorities. Throws `bundle/invalid`. */
export function parseBundlePem(text: string, trustDomain: TrustDomain): Bundle {
  const x509Authorities = new Map<string, X509Authority>();
  try {
    for (const certificate of pemDecode(text, 'CERTIFICATE', 'bundle')) {
      parseCertificate(certificate);
      x509Authorities.set(certificate.toString('latin1'), { certificate, tainted: false });
    }
  } catch (error) {
    throw refused(trustDomain, error instanceof Fault ? error.message : String(error), error);
  }
  return {
    trustDomain,
    x509Authorities: [...x509Authorities.values()],
    jwtAuthorities: [],
    witAuthorities: [],
    refreshHint: 0,
    sequence: 0n,
  };
}

/** The X.509 authorities of a bundle in PEM, one block after the other. */
export function printBundlePem(bundle: Bundle): string {
  return bundle.x509Authorities.map(({ certificate }) => pemEncode('CERTIFICATE', certificate)).join('');
}

/**
 * Whether a bundle just fetched takes the place of the one held (FED-5): its sequence is not lower. Where either has no
 * sequence (0) the one fetched later wins. Two trust domains never replace one another.
 */
export function supersedes(fetched: Bundle, held: Bundle): boolean {
  if (fetched.trustDomain !== held.trustDomain) return false;
  return fetched.sequence === 0n || held.sequence === 0n || fetched.sequence >= held.sequence;
}

/**
 * What is held after a fetch: the bundle in the text, or, when that is not valid or older than the one held, the very
 * bundle held, with why. Never throws for what the text says: a bad answer must not cost the trust there is.
 */
export function takeUpdate(stored: Bundle, fetchedText: string): { readonly bundle: Bundle; readonly refused?: Fault } {
  const { trustDomain } = stored;
  try {
    const fetched = parseBundle(fetchedText, trustDomain);
    if (supersedes(fetched, stored)) return { bundle: fetched };
    const why = `its sequence ${fetched.sequence} is lower than ${stored.sequence}, which is held`;
    return { bundle: stored, refused: refused(trustDomain, why) };
  } catch (error) {
    if (error instanceof Fault) return { bundle: stored, refused: error };
    throw error;
  }
}

function keySet(authorities: readonly JwtAuthority[]): string {
  return JSON.stringify({ keys: authorities.map(({ keyId, publicKey }) => ({ kid: keyId, ...publicJwk(publicKey) })) });
}

function documentOf(text: string, trustDomain: TrustDomain): { [name: string]: Json } {
  try {
    return parseJsonObject(text, 'it');
  } catch (error) {
    throw refused(trustDomain, error instanceof Fault ? error.message : String(error), error);
  }
}

/** The first certificate of `x5c`; undefined when there is none (X509-30, X509-31). */
function certificateOf(jwk: { [name: string]: Json }, trustDomain: TrustDomain, where: string): Buffer | undefined {
  const { x5c } = jwk;
  if (!Array.isArray(x5c) || x5c.length === 0) return undefined;
  const [text] = x5c;
  if (typeof text !== 'string' || text === '') throw refused(trustDomain, `${where}: "x5c" does not hold text`);
  const certificate = Buffer.from(text, 'base64');
  if (certificate.toString('base64') !== text) throw refused(trustDomain, `${where}: "x5c" is not standard base64`);
  try {
    parseCertificate(certificate);
  } catch (error) {
    throw refused(trustDomain, `${where}: ${error instanceof Fault ? error.message : String(error)}`, error);
  }
  return certificate;
}

/** A key for tokens; undefined when it has no name or is on a curve no algorithm here uses. */
function tokenKeyOf(jwk: { [name: string]: Json }, trustDomain: TrustDomain, where: string): JwtAuthority | undefined {
  const { kid } = jwk;
  if (typeof kid !== 'string' || kid === '') return undefined;
  if (!isTokenKeyKind(jwk)) return undefined;
  try {
    return { keyId: kid, publicKey: spkiOfJwk(jwk, where), expiresAt: 0, tainted: false };
  } catch (error) {
    throw refused(trustDomain, error instanceof Fault ? error.message : String(error), error);
  }
}

function wholeNumber(value: Json | undefined, trustDomain: TrustDomain, name: string, most: bigint): bigint {
  if (value === undefined) return 0n;
  const number = typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : value;
  if (typeof number === 'bigint' && number >= 0n && number <= most) return number;
  throw refused(trustDomain, `"${name}" is ${quote(value)}, not a whole number`);
}

function refused(trustDomain: TrustDomain, why: string, cause?: unknown): Fault {
  return new Fault('bundle/invalid', `bundle of trust domain ${quote(trustDomain)} is not valid: ${why}`, { cause });
}
