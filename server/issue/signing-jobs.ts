/**
 * What a signing worker is told and answers, and how it does a job: with the functions of the first thread. Of a job that
 * fails it says no more than that. The first thread then does it anew, and finds the words.
 */
import type { KeyObject } from 'node:crypto';
import { type Certificate, parseCertificate } from '../../src/crypto/certificate.ts';
import { prepareIssuer } from '../../src/crypto/certificate-writer.ts';
import { type Csr, parseCsr } from '../../src/crypto/csr.ts';
import { heldKey } from '../../src/keys/key-store.ts';
import type { Random } from '../../src/run/random.ts';
import type { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import type { JwtSigner } from '../authority/jwt.ts';
import type { X509Signer } from '../authority/x509.ts';
import { issueJwtSvid, type JwtProfile } from './jwt.ts';
import { mintProfile } from './mint.ts';
import type { IssuedToken } from './token.ts';
import { issueX509Svid } from './x509.ts';

/** What is the same for all jobs. */
export interface SigningRules {
  readonly trustDomain: TrustDomain;
  /** Which requests are read, as `parseCsr` takes it. */
  readonly requests: NonNullable<Parameters<typeof parseCsr>[1]>;
}

/** A signer without what is computed from it. The key is handed over as the object it is: its bytes are not copied. */
export type SignerData = { readonly number: number; readonly key: KeyObject; readonly notAfter: number } & (
  | {
      readonly kind: 'x509';
      readonly authorityId: string;
      readonly certificate: Uint8Array;
      readonly chain: readonly Uint8Array[];
    }
  | { readonly kind: 'jwt'; readonly keyId: string; readonly algorithm: JwtSigner['algorithm'] }
);

/** Times are in milliseconds. `signer` is the number of one that was told before. */
export interface X509Job {
  readonly kind: 'x509';
  readonly signer: number;
  readonly csr: Uint8Array;
  /** What an entry says; absent where the request itself names the ID, which an operator wants minted. */
  readonly entry: { readonly id: SpiffeId; readonly dnsNames: readonly string[] } | undefined;
  readonly ttl: number;
  readonly now: number;
  /** Random bytes, for the serial number: they are drawn by the first thread. */
  readonly drawn: Uint8Array;
}
export interface JwtJob {
  readonly kind: 'jwt';
  readonly signer: number;
  readonly profile: JwtProfile;
  readonly now: number;
}
export type Job = X509Job | JwtJob;

export interface X509Done {
  readonly id: SpiffeId;
  readonly certificate: Uint8Array;
  readonly notBefore: number;
  readonly notAfter: number;
  /** Decimal. */
  readonly serial: string;
}
/** Undefined: the first thread has to do it. */
export type Outcome = X509Done | IssuedToken | undefined;

export interface ToWorker {
  /** Told before the first job that needs them. */
  readonly signers: readonly SignerData[];
  readonly jobs: readonly Job[];
}
/** In the order of the jobs. */
export type FromWorker = readonly Outcome[];

/** As many of each kind are remembered: one goes on being used for a moment when the next one is there. */
const remembered = 4;

/** What one worker knows, and how it does a job. */
export function signingTable({ trustDomain, requests }: SigningRules) {
  const x509 = new Map<number, X509Signer>();
  const jwt = new Map<number, JwtSigner>();
  const remember = <T>(table: Map<number, T>, number: number, signer: T): void => {
    table.set(number, signer);
    if (table.size > remembered) table.delete(table.keys().next().value as number);
  };

  async function certificate(job: X509Job): Promise<X509Done | undefined> {
    const signer = x509.get(job.signer);
    if (signer === undefined) return undefined;
    const request = parseCsr(view(job.csr), requests);
    if (!request.verify()) return undefined;
    const profile = job.entry
      ? entryProfile(job.entry, request, job.ttl)
      : mintProfile(request, () => job.ttl, trustDomain);
    const { chain, notBefore, notAfter, serial } = await issueX509Svid(signer, profile, job.now, given(job.drawn));
    return { id: profile.id, certificate: Uint8Array.from(chain[0]!), notBefore, notAfter, serial };
  }

  return {
    learn(data: SignerData): void {
      const { number, notAfter } = data;
      const key = heldKey('', data.key);
      if (data.kind === 'jwt') {
        remember(jwt, number, { keyId: data.keyId, algorithm: data.algorithm, key, notAfter });
        return;
      }
      const parsed: Certificate = parseCertificate(view(data.certificate));
      remember(x509, number, {
        authorityId: data.authorityId,
        certificate: parsed,
        issuer: prepareIssuer({ certificate: parsed }),
        key,
        chain: data.chain.map(view),
        notAfter,
        // Authorities below are signed by the first thread.
        room: 0,
      });
    },
    async work(job: Job): Promise<Outcome> {
      try {
        if (job.kind === 'x509') return await certificate(job);
        const signer = jwt.get(job.signer);
        return signer && (await issueJwtSvid(signer, job.profile, job.now, 'here'));
      } catch {
        return undefined;
      }
    },
  };
}

const entryProfile = ({ id, dnsNames }: NonNullable<X509Job['entry']>, { spki, key }: Csr, ttl: number) => ({
  ...{ id, spki, keyBits: key.keyBits, dnsNames, ttl },
});

const view = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Randomness that was drawn elsewhere, once. */
const given = (drawn: Uint8Array): Pick<Random, 'bytes'> => ({ bytes: () => view(drawn) });
