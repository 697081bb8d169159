/**
 * A certificate and token authority for tests, as a value with methods. Keys are generated; everything it makes is right
 * unless a test asks for one thing to be wrong.
 */
import { randomBytes } from 'node:crypto';
import { classicFacts, generateKey, type JwtAlgorithm, type KeyType, keyTypes } from '../../src/crypto/algorithms.ts';
import { type Certificate, KeyUsage, parseCertificate } from '../../src/crypto/certificate.ts';
import {
  authorityKeyId,
  basicConstraints,
  extendedKeyUsage,
  extension,
  keyIdOf,
  keyUsage,
  name,
  prepareIssuer,
  subjectAltName,
  subjectKeyId,
  writeCertificate,
} from '../../src/crypto/certificate-writer.ts';
import { namedBits } from '../../src/crypto/der.ts';
import { signJwt } from '../../src/crypto/jwt.ts';
import { type HeldKey, heldKey } from '../../src/keys/key-store.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { parseTrustDomain, type SpiffeId, type TrustDomain, trustDomainId } from '../../src/spiffe/id.ts';

const hour = 3_600_000;

/** What may be chosen, or made wrong, in a certificate. Left out, each is as an SVID must have it. */
export interface CertificateWishes {
  /** The one URI name. */
  id?: SpiffeId | string;
  /** All URI names, in the place of `id`. */
  uris?: readonly string[];
  dnsNames?: readonly string[];
  sanCritical?: boolean;
  /** SubjectPublicKeyInfo, DER; without it a key is made. */
  publicKey?: Buffer;
  keyType?: KeyType;
  /** Milliseconds since the epoch. */
  notBefore?: number;
  notAfter?: number;
  serial?: Buffer;
  /** Name, DER. */
  subject?: Buffer;
  ca?: boolean;
  pathLength?: number;
  /** Flags; null leaves the extension out. */
  keyUsage?: number | null;
  keyUsageCritical?: boolean;
  extendedKeyUsage?: readonly ('serverAuth' | 'clientAuth')[] | null;
  basicConstraints?: false;
  /** Whole extensions to add at the end. */
  more?: readonly Buffer[];
}

export interface IssuedSvid {
  readonly id: SpiffeId;
  /** Undefined when the public key was given. */
  readonly key: HeldKey | undefined;
  readonly der: Buffer;
  readonly certificate: Certificate;
  /** Leaf first, then intermediates, without the root. */
  readonly chain: readonly Buffer[];
}

export interface TestAuthority {
  readonly trustDomain: TrustDomain;
  readonly key: HeldKey;
  readonly certificate: Certificate;
  readonly der: Buffer;
  /** What a holder of its certificates sends along: itself when it is an intermediate, and those above but the root. */
  readonly above: readonly Buffer[];
  readonly jwtKey: HeldKey;
  readonly jwtKeyId: string;
  issue(wishes?: CertificateWishes): IssuedSvid;
  /** An authority below this one. */
  intermediate(wishes?: CertificateWishes): TestAuthority;
  /** The trust domain's bundle: this certificate and this JWT key, and whatever a test puts in its place. */
  bundle(parts?: Partial<Bundle>): Bundle;
  /** A signed token: sub, aud, exp and iat are filled in unless given; undefined leaves a claim out. */
  jwt(claims?: Record<string, unknown>, header?: Record<string, unknown>): string;
}

/**
 * @param options.now milliseconds since the epoch; certificates run from an hour before to a day after, SVIDs for an hour
 */
export function testAuthority(options: {
  trustDomain?: string;
  now: number;
  keyType?: KeyType;
  jwtKeyType?: KeyType;
  root?: CertificateWishes;
}): TestAuthority {
  const trustDomain = parseTrustDomain(options.trustDomain ?? 'example.org');
  const { now, keyType = 'ec-p256' } = options;
  const key = heldKey('ca', generateKey(keyType).privateKey);
  const jwtKey = heldKey('jwt', generateKey(options.jwtKeyType ?? 'ec-p256').privateKey);
  const self = {
    key,
    spki: key.publicKey,
    subject: caName(),
    algorithm: keyTypes[keyType].signatureAlgorithm,
    authorityKeyId: keyIdOf(key.publicKey),
  };
  const der = write(
    { ...authorityWishes(trustDomain, now), subject: self.subject, ...options.root, publicKey: key.publicKey },
    self,
    now,
  );
  return authority({ trustDomain, now, key, jwtKey, der, above: [] });
}

function authority(parts: {
  trustDomain: TrustDomain;
  now: number;
  key: HeldKey;
  jwtKey: HeldKey;
  der: Buffer;
  above: readonly Buffer[];
}): TestAuthority {
  const { trustDomain, now, key, jwtKey, der, above } = parts;
  const certificate = parseCertificate(der);
  const issuer = prepareIssuer({ certificate });
  const signer = {
    key,
    subject: issuer.name,
    algorithm: issuer.algorithm,
    authorityKeyId: certificate.subjectKeyId ?? Buffer.alloc(0),
  };
  const jwtKeyId = keyIdOf(jwtKey.publicKey).toString('hex').slice(0, 32);
  return {
    trustDomain,
    key,
    certificate,
    der,
    above,
    jwtKey,
    jwtKeyId,
    issue(wishes = {}) {
      const held =
        wishes.publicKey === undefined
          ? heldKey('leaf', generateKey(wishes.keyType ?? 'ec-p256').privateKey)
          : undefined;
      const id = wishes.id ?? `spiffe://${trustDomain}/workload`;
      const leaf = write({ id, ...wishes, publicKey: wishes.publicKey ?? held!.publicKey }, signer, now);
      return { id: id as SpiffeId, key: held, der: leaf, certificate: parseCertificate(leaf), chain: [leaf, ...above] };
    },
    intermediate(wishes = {}) {
      const below = heldKey('intermediate', generateKey(wishes.keyType ?? 'ec-p256').privateKey);
      const belowDer = write(
        { ...authorityWishes(trustDomain, now), subject: caName(), ...wishes, publicKey: below.publicKey },
        signer,
        now,
      );
      return authority({ trustDomain, now, key: below, jwtKey, der: belowDer, above: [belowDer, ...above] });
    },
    bundle(changes = {}) {
      return {
        trustDomain,
        x509Authorities: [{ certificate: der, tainted: false }],
        jwtAuthorities: [{ keyId: jwtKeyId, publicKey: jwtKey.publicKey, expiresAt: 0, tainted: false }],
        witAuthorities: [],
        refreshHint: 300,
        sequence: 1n,
        ...changes,
      };
    },
    jwt(claims = {}, header = {}) {
      const seconds = Math.floor(now / 1000);
      const all = {
        sub: `spiffe://${trustDomain}/workload`,
        aud: ['audience'],
        exp: seconds + 300,
        iat: seconds,
        ...claims,
      };
      const head = { alg: classicFacts(jwtKey.type, 'a test').jwa, kid: jwtKeyId, typ: 'JWT', ...header };
      if (Object.keys(header).every((member) => ['alg', 'kid'].includes(member)) && head.kid !== undefined) {
        return signJwt(head as { alg: JwtAlgorithm; kid: string; typ: string }, all, (data) =>
          jwtKey.sign(data, 'raw'),
        );
      }
      // A header that `signJwt` would never write.
      const input = [head, all].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
      return `${input}.${jwtKey.sign(Buffer.from(input), 'raw').toString('base64url')}`;
    },
  };
}

interface Signer {
  key: HeldKey;
  /** Name, DER. */
  subject: Buffer;
  algorithm: Buffer;
  authorityKeyId: Buffer;
}

function write(wishes: CertificateWishes & { publicKey: Buffer }, signer: Signer, now: number): Buffer {
  const { publicKey: spki, ca = false } = wishes;
  const uris = wishes.uris ?? (wishes.id === undefined ? [] : [wishes.id]);
  const flags = wishes.keyUsage === undefined ? defaultUsage(ca) : wishes.keyUsage;
  const usages =
    wishes.extendedKeyUsage === undefined && !ca ? (['serverAuth', 'clientAuth'] as const) : wishes.extendedKeyUsage;
  const extensions: Buffer[] = [];
  if (flags !== null)
    extensions.push(
      wishes.keyUsageCritical === false ? extension('2.5.29.15', false, namedBits(flags)) : keyUsage(flags),
    );
  if (usages) extensions.push(extendedKeyUsage(...usages));
  if (wishes.basicConstraints !== false) extensions.push(basicConstraints({ ca, pathLength: wishes.pathLength }));
  extensions.push(subjectKeyId(spki), authorityKeyId(signer.authorityKeyId));
  const dnsNames = wishes.dnsNames ?? [];
  if (uris.length + dnsNames.length > 0)
    extensions.push(subjectAltName({ uris, dnsNames, critical: wishes.sanCritical ?? false }));
  return writeCertificate(
    {
      serial: wishes.serial ?? Buffer.concat([Buffer.of(1), randomBytes(15)]),
      issuer: signer.subject,
      notBefore: wishes.notBefore ?? now - 10_000,
      notAfter: wishes.notAfter ?? now + hour,
      subject:
        wishes.subject ??
        name([
          ['C', 'US'],
          ['O', 'SPIRE'],
        ]),
      spki,
      extensions: [...extensions, ...(wishes.more ?? [])],
      algorithm: signer.algorithm,
    },
    (tbs) => signer.key.sign(tbs, 'der'),
  );
}

function authorityWishes(trustDomain: TrustDomain, now: number): CertificateWishes {
  return { ca: true, id: trustDomainId(trustDomain), notBefore: now - hour, notAfter: now + 24 * hour };
}

function defaultUsage(ca: boolean): number {
  return ca
    ? KeyUsage.keyCertSign | KeyUsage.cRLSign
    : KeyUsage.digitalSignature | KeyUsage.keyEncipherment | KeyUsage.keyAgreement;
}

/** A name that no other authority of the run has. */
function caName(): Buffer {
  return name([
    ['C', 'US'],
    ['O', 'SPIFFE'],
    ['serialNumber', randomBytes(8).readBigUInt64BE().toString()],
  ]);
}
