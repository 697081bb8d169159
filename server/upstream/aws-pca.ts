/**
 * Upstream `aws-pca`: a certificate authority of AWS Private CA signs our authority. The SDK is an optional package;
 * credentials come from where it always looks for them, or from a role that is assumed with those.
 */
import { hash } from 'node:crypto';
import { type Certificate, parseCertificate } from '../../src/crypto/certificate.ts';
import { parseCsr } from '../../src/crypto/csr.ts';
import { pemDecode, pemEncode } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import { type LoadPackage, loadOptional } from '../../src/keys/load-package.ts';
import { type Clock, sleep } from '../../src/run/clock.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';
import { isRoot, rootsIn, untainted } from './certificate-files.ts';
import type { Upstream } from './upstream.ts';

/** The names are those of SPIRE's plugin `aws_pca`, written as all options here are. */
export interface AwsPcaOptions {
  readonly region: string;
  readonly certificateAuthorityArn: string;
  /** As the authority itself was signed, when absent. */
  readonly signingAlgorithm?: string;
  /** One that allows no authority below ours, when absent. */
  readonly caSigningTemplateArn?: string;
  /** Another address than the region's. */
  readonly endpoint?: string;
  readonly assumeRoleArn?: string;
  /** Roots to trust beside the one that the chain of the authority leads to, PEM. */
  readonly supplementalBundlePath?: string;
}

/** A certificate takes a few seconds to be made. It is looked for this often, milliseconds, and this many times. */
const lookEvery = 1_000;
const looks = 30;
/** Roots change seldom, and AWS counts calls. Milliseconds. */
const rootsEvery = 60_000;
/** The longest life that an authority for short-lived certificates gives, milliseconds. */
const shortLived = 7 * 24 * 3_600_000;

// biome-ignore lint/suspicious/noExplicitAny: the SDK's own messages; each is looked into where it is read.
type Answer = any;
interface Client {
  send(command: object, options?: object): Promise<Answer>;
  destroy(): void;
}
/** What is used of an SDK. */
interface Sdk {
  [client: `${string}Client`]: new (config: object) => Client;
  [command: `${string}Command`]: new (input: object) => object;
}

/** Throws `config/invalid` when a package is missing. AWS is asked when something is wanted of it. */
export async function awsPcaUpstream(
  options: AwsPcaOptions,
  { clock, load }: { clock: Clock; load: LoadPackage },
): Promise<Upstream> {
  const { region, certificateAuthorityArn: arn, endpoint, assumeRoleArn, supplementalBundlePath } = options;
  const sdk = await loadOptional<Sdk>(load, '@aws-sdk/client-acm-pca', 'upstream.authority aws-pca');
  const role = assumeRoleArn === undefined ? undefined : await roleCredentials(assumeRoleArn, region, load);
  const client = new sdk.ACMPCAClient!({
    region,
    maxAttempts: 2,
    ...(endpoint !== undefined && { endpoint }),
    ...(role && { credentials: role.credentials }),
  });
  const template =
    options.caSigningTemplateArn ?? `arn:${arn.split(':')[1]}:acm-pca:::template/SubordinateCACertificate_PathLen0/V1`;
  /** Requests that AWS could not fulfil: the next one for the same key has to be another. */
  let failures = 0;
  let known: { readonly at: number; readonly roots: readonly X509Authority[] } | undefined;

  /** @param more of the input, beside which authority is meant */
  const send = (command: string, more: object, abortSignal: AbortSignal): Promise<Answer> =>
    client
      .send(new sdk[`${command}Command`]!({ CertificateAuthorityArn: arn, ...more }), { abortSignal })
      .catch((error: unknown) => {
        throw explained(error, command, options);
      });

  /** Throws `upstream/refused` for one that signs nothing now. */
  async function describe(signal: AbortSignal): Promise<{ algorithm: string; longest: (now: number) => number }> {
    const { CertificateAuthority: found } = await send('DescribeCertificateAuthority', {}, signal);
    const { Status, FailureReason, NotAfter, UsageMode, CertificateAuthorityConfiguration: made } = found ?? {};
    if (Status !== 'ACTIVE') {
      const why = FailureReason === undefined ? '' : ` (${FailureReason})`;
      throw new Fault(
        'upstream/refused',
        `${quote(arn)} is ${Status ?? 'of no known state'}${why}; it has to be ACTIVE`,
        {
          hint: remedies[Status] ?? 'See it in AWS Private CA.',
        },
      );
    }
    const algorithm = options.signingAlgorithm ?? made?.SigningAlgorithm;
    if (typeof algorithm !== 'string') throw garbled('with an authority without a signing algorithm');
    const end = NotAfter instanceof Date ? NotAfter.getTime() : Number.POSITIVE_INFINITY;
    // AWS refuses what would outlive the authority, where others cut it.
    return {
      algorithm,
      longest: (now) => Math.min(end, UsageMode === 'SHORT_LIVED_CERTIFICATE' ? now + shortLived : end),
    };
  }

  async function issued(certificateArn: string, signal: AbortSignal): Promise<Answer> {
    for (let looked = 1; ; looked++) {
      try {
        return await send('GetCertificate', { CertificateArn: certificateArn }, signal);
      } catch (error) {
        const name = errorName((error as Fault).cause);
        if (name === 'RequestFailedException') failures++;
        if (name !== 'RequestInProgressException' || looked === looks) throw error;
      }
      await sleep(clock, lookEvery, signal);
    }
  }

  /** The roots of a chain, and those of the file. */
  async function withFile(chain: readonly X509Authority[]): Promise<readonly X509Authority[]> {
    const more = supplementalBundlePath === undefined ? [] : await rootsIn(supplementalBundlePath);
    const all = new Map([...chain, ...more].map((root) => [root.certificate.toString('base64'), root]));
    if (all.size > 0) return [...all.values()];
    throw new Fault('upstream/refused', `the chain that AWS Private CA has for ${quote(arn)} does not reach a root`, {
      hint: 'Import it anew with its whole chain, or give upstream.awsPca.supplementalBundlePath.',
    });
  }

  return {
    name: 'aws-pca',
    at: arn,
    async mint(csr, ttl, signal) {
      const { algorithm, longest } = await describe(signal);
      const now = clock.now();
      const request = {
        Csr: Buffer.from(pemEncode('CERTIFICATE REQUEST', csr)),
        SigningAlgorithm: algorithm,
        TemplateArn: template,
        Validity: { Type: 'ABSOLUTE', Value: Math.floor(Math.min(now + ttl, longest(now)) / 1000) },
        // Who asks again for the same key, since an answer was lost, gets the certificate that was made.
        IdempotencyToken: hash('sha256', Buffer.concat([parseCsr(csr).spki, Buffer.from(`${failures}`)])).slice(0, 32),
      };
      const { CertificateArn } = await send('IssueCertificate', request, signal);
      if (typeof CertificateArn !== 'string') throw garbled('without saying which certificate it makes');
      const { Certificate: own, CertificateChain: above } = await issued(CertificateArn, signal);
      const chain = certificates(own, above);
      return { chain: chain.map(({ der }) => der), roots: await withFile(rootsOf(chain)) };
    },
    async state(signal) {
      if (known === undefined || clock.now() - known.at >= rootsEvery) {
        await describe(signal);
        const { Certificate: own, CertificateChain: above } = await send(
          'GetCertificateAuthorityCertificate',
          {},
          signal,
        );
        known = { at: clock.now(), roots: rootsOf(certificates(own, above)) };
      }
      return { x509Authorities: await withFile(known.roots) };
    },
    close() {
      client.destroy();
      role?.close();
    },
  };
}

/** What to do about an authority that is not active, by its state. */
const remedies: Readonly<Record<string, string>> = {
  CREATING: 'It is being made; it is asked again.',
  PENDING_CERTIFICATE: 'Install its certificate.',
  DISABLED: 'Enable it: aws acm-pca update-certificate-authority --status ACTIVE.',
  EXPIRED: 'Import a certificate for it that has not ended.',
  DELETED: 'Restore it, or name another in upstream.awsPca.certificateAuthorityArn.',
};

/** Credentials of a role, got with those of this machine; the SDK keeps them, and asks anew before they end. */
async function roleCredentials(RoleArn: string, region: string, load: LoadPackage) {
  const sdk = await loadOptional<Sdk>(load, '@aws-sdk/client-sts', 'upstream.awsPca.assumeRoleArn');
  const client = new sdk.STSClient!({ region, maxAttempts: 2 });
  return {
    async credentials(): Promise<object> {
      const command = new sdk.AssumeRoleCommand!({ RoleArn, RoleSessionName: 'mutual-server' });
      const { Credentials: given } = await client.send(command).catch((error: unknown) => {
        if (!isRefusal(error)) throw error;
        throw refused(`refuses role ${quote(RoleArn)} to the credentials of this server`, error);
      });
      return {
        accessKeyId: given.AccessKeyId,
        secretAccessKey: given.SecretAccessKey,
        sessionToken: given.SessionToken,
        expiration: given.Expiration,
      };
    },
    close: () => client.destroy(),
  };
}

const rootsOf = (chain: readonly Certificate[]): readonly X509Authority[] =>
  chain.filter(isRoot).map(({ der }) => untainted(der));

/** Those in texts of PEM. An authority that is a root has no text for what is above it. */
function certificates(...texts: readonly unknown[]): readonly Certificate[] {
  try {
    return texts
      .filter((text) => typeof text === 'string' && text.trim() !== '')
      .flatMap((text) => pemDecode(text as string, 'CERTIFICATE', 'answer of AWS Private CA').map(parseCertificate));
  } catch (error) {
    throw garbled('with a certificate that cannot be read', error);
  }
}

const errorName = (error: unknown): string => String((error as { name?: unknown } | undefined)?.name ?? '');
const saidBy = (error: unknown): string => `${errorName(error)}: ${(error as Error | undefined)?.message}`;

const badCredentials =
  /^(CredentialsProviderError|ExpiredToken(Exception)?|UnrecognizedClientException|InvalidSignatureException|InvalidClientTokenId|IncompleteSignature)$/;
const tooMany = /Throttl|LimitExceeded|TooManyRequests/;

/** What will be no better by itself. */
function isRefusal(error: unknown): boolean {
  const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode ?? 0;
  const name = errorName(error);
  return badCredentials.test(name) || (status >= 400 && status < 500 && !tooMany.test(name));
}

function explained(error: unknown, command: string, { certificateAuthorityArn: arn, region }: AwsPcaOptions): Fault {
  if (error instanceof Fault) return error;
  const name = errorName(error);
  if (badCredentials.test(name)) return refused('refuses the credentials of this server, or there are none', error);
  switch (name) {
    case 'ResourceNotFoundException':
    case 'InvalidArnException':
      return refused(`has no certificate authority ${quote(arn)} in region ${quote(region)}`, error);
    case 'AccessDeniedException':
      return refused(`does not let this server call acm-pca:${command} on ${quote(arn)}`, error);
    case 'RequestFailedException':
      return refused(`could not make the certificate that ${quote(arn)} was asked for`, error);
    case 'RequestInProgressException':
      return unavailable(`has no certificate of ${quote(arn)} after ${(looks * lookEvery) / 1000} s`, error);
  }
  if (tooMany.test(name)) return unavailable('has too many calls to answer', error);
  if (isRefusal(error)) return refused(`refuses ${command} of ${quote(arn)}`, error);
  const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
  return unavailable(status === undefined ? 'cannot be reached' : `failed with status ${status}`, error);
}

const garbled = (what: string, error?: unknown): Fault => unavailable(`answered ${what}`, error);

function refused(what: string, error: unknown): Fault {
  return new Fault('upstream/refused', `AWS Private CA ${what}`, {
    hint: 'See upstream.awsPca and what the role of this server may do; the log of the server has the answer.',
    detail: saidBy(error),
    cause: error,
  });
}

function unavailable(what: string, error: unknown): Fault {
  return new Fault('upstream/unavailable', `AWS Private CA ${what}`, {
    hint: 'What was issued goes on working; it is asked again.',
    ...(error !== undefined && { detail: saidBy(error), cause: error }),
  });
}
