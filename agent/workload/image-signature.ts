/**
 * Signatures of container images by Sigstore, verified with what lies on this machine and nothing else: a pinned trusted
 * root (Fulcio's certificates, keys of Rekor and of the certificate log), and for each image a directory of bundles. A
 * bundle is a DSSE envelope around an in-toto statement about the image's digest, as cosign signs images with
 * `--new-bundle-format`; what says nothing of a digest proves nothing of an image.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Fault, quote } from '../../src/errors.ts';
import { type LoadPackage, loadOptional, loadPackage } from '../../src/keys/load-package.ts';
import { fieldsOf, itemsOf, textOf } from './get-json.ts';

export interface SigstoreOptions {
  readonly trustedRootPath: string;
  readonly bundleDirectory: string;
  /** `ISSUER SUBJECT`, each with `*` for any text. */
  readonly allowedIdentities: readonly string[];
}

/** One signature that holds, by somebody who is allowed to sign. */
export interface ImageSignature {
  readonly subject: string;
  readonly issuer: string;
  /** Base64. */
  readonly value: string;
  /** The entry of the transparency log; `id` in lower-case hex. */
  readonly log?: { readonly id: string; readonly index: string; readonly time: string; readonly promise: string };
  readonly isAttestation: boolean;
}

export interface ImageVerifier {
  /**
   * The signatures of an image, none where there is no bundle. Throws `peer/untrusted` with what is wrong when none of its
   * bundles holds, `config/invalid` for a trusted root that cannot be read.
   * @param digest of the image's manifest or index, `sha256:...`
   */
  verify(digest: string): Promise<readonly ImageSignature[]>;
}

// What is used of the packages.
interface Verify {
  Verifier: new (
    material: object,
  ) => { verify(entity: object): { identity?: { subjectAlternativeName?: string; extensions?: { issuer?: string } } } };
  toSignedEntity(bundle: object): object;
  toTrustMaterial(root: object): object;
}
interface Bundles {
  bundleFromJSON(json: unknown): BundleValue;
}
interface Specs {
  TrustedRoot: { fromJSON(json: unknown): object };
}
interface BundleValue {
  readonly content: { readonly $case: string; readonly dsseEnvelope?: Envelope };
  readonly verificationMaterial: { readonly tlogEntries: readonly LogEntry[] };
}
interface Envelope {
  readonly payloadType: string;
  readonly payload: Uint8Array;
  readonly signatures: readonly { readonly sig: Uint8Array }[];
}
interface LogEntry {
  readonly logId?: { readonly keyId: Uint8Array };
  readonly logIndex: string;
  readonly integratedTime: string;
  readonly inclusionPromise?: { readonly signedEntryTimestamp: Uint8Array };
}
interface Loaded {
  readonly verify: Verify;
  readonly bundles: Bundles;
  readonly specs: Specs;
}

/** Bundles of one image, bytes of one, and bytes of the root. */
const most = { bundles: 100, bundle: 1024 * 1024, root: 4 * 1024 * 1024 } as const;
const imageStatement = 'https://sigstore.dev/cosign/sign/v1';

export function imageVerifier(options: SigstoreOptions, load: LoadPackage = loadPackage): ImageVerifier {
  const allowed = options.allowedIdentities.map(readIdentity);
  let packages: Promise<Loaded> | undefined;
  let root: { readonly mark: string; readonly verifier: InstanceType<Verify['Verifier']> } | undefined;

  const verifierNow = ({ verify, specs }: Loaded): InstanceType<Verify['Verifier']> => {
    const path = options.trustedRootPath;
    try {
      const mark = markOf(path);
      if (root?.mark === mark) return root.verifier;
      const material = verify.toTrustMaterial(specs.TrustedRoot.fromJSON(readJson(path, most.root)));
      root = { mark, verifier: new verify.Verifier(material) };
      return root.verifier;
    } catch (error) {
      throw new Fault('config/invalid', `the trusted root ${quote(path)} cannot be used: ${(error as Error).message}`, {
        hint: 'Give a trusted_root.json, as "cosign trusted-root create" writes it.',
        cause: error,
      });
    }
  };

  return {
    async verify(digest) {
      const paths = bundlesOf(options.bundleDirectory, digest);
      if (paths.length === 0) return [];
      packages ??= loadAll(load);
      packages.catch(() => {
        packages = undefined;
      });
      const loaded = await packages;
      const verifier = verifierNow(loaded);
      const found: ImageSignature[] = [];
      const wrong: string[] = [];
      for (const path of paths) {
        try {
          found.push(signatureIn(readJson(path, most.bundle), digest, loaded, verifier, allowed));
        } catch (error) {
          wrong.push(`${path}: ${(error as Error).message}`);
        }
      }
      if (found.length > 0) return found;
      throw new Fault('peer/untrusted', `no signature of image ${digest} can be believed: ${wrong[0]}`, {
        detail: wrong.slice(1, 10).join('; '),
      });
    },
  };
}

function signatureIn(
  json: unknown,
  digest: string,
  { verify, bundles }: Loaded,
  verifier: InstanceType<Verify['Verifier']>,
  allowed: readonly Identity[],
): ImageSignature {
  const bundle = bundles.bundleFromJSON(json);
  const envelope = bundle.content.dsseEnvelope;
  if (envelope === undefined || envelope.payloadType !== 'application/vnd.in-toto+json')
    throw new Error('it is no signed statement about an image');
  const { identity } = verifier.verify(verify.toSignedEntity(bundle));
  const subject = identity?.subjectAlternativeName ?? '';
  const issuer = identity?.extensions?.issuer ?? '';
  if (!allowed.some((one) => one.issuer.test(issuer) && one.subject.test(subject)))
    throw new Error(`its signer ${quote(subject)}, known by ${quote(issuer)}, is not one of those allowed`);
  const statement = JSON.parse(Buffer.from(envelope.payload).toString('utf8'));
  if (!itemsOf(statement, 'subject').some((one) => `sha256:${textOf(fieldsOf(one, 'digest'), 'sha256')}` === digest))
    throw new Error('it is a statement about another image');
  const [entry] = bundle.verificationMaterial.tlogEntries;
  return {
    subject,
    issuer,
    value: base64(envelope.signatures[0]?.sig),
    ...(entry && {
      log: {
        id: Buffer.from(entry.logId?.keyId ?? []).toString('hex'),
        index: entry.logIndex,
        time: entry.integratedTime,
        promise: base64(entry.inclusionPromise?.signedEntryTimestamp),
      },
    }),
    isAttestation: textOf(statement, 'predicateType') !== imageStatement,
  };
}

interface Identity {
  readonly issuer: RegExp;
  readonly subject: RegExp;
}

/** Reads `ISSUER SUBJECT`. Throws `config/invalid`. */
export function readIdentity(text: string): Identity {
  const [issuer, subject, ...more] = text.trim().split(/\s+/);
  if (issuer === undefined || subject === undefined || issuer === '' || more.length > 0) {
    throw new Fault('config/invalid', `${quote(text)} is not an issuer and a subject with a blank between`, {
      hint: 'Write for example "https://token.actions.githubusercontent.com https://github.com/acme/*".',
    });
  }
  return { issuer: globOf(issuer), subject: globOf(subject) };
}

const globOf = (text: string): RegExp =>
  new RegExp(
    `^${text
      .split('*')
      .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')}$`,
    's',
  );

/** The bundles of an image: all `.json` files in the directory of its digest. */
function bundlesOf(directory: string, digest: string): readonly string[] {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1];
  if (hex === undefined) return [];
  const own = join(directory, `sha256-${hex}`);
  let names: string[];
  try {
    names = readdirSync(own).filter((name) => name.endsWith('.json'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new Fault('config/invalid', `the directory ${quote(own)} of signatures cannot be read`, { cause: error });
  }
  if (names.length > most.bundles)
    throw new Fault('limit/exceeded', `image ${digest} has ${names.length} bundles; at most ${most.bundles} are read`);
  return names.sort().map((name) => join(own, name));
}

function readJson(path: string, longest: number): unknown {
  const { size } = statSync(path);
  if (size > longest) throw new Error(`it is longer than ${longest} bytes`);
  return JSON.parse(readFileSync(path, 'utf8'));
}

const markOf = (path: string): string => {
  const { ino, size, mtimeMs } = statSync(path);
  return `${ino}:${size}:${mtimeMs}`;
};

const base64 = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('base64');

async function loadAll(load: LoadPackage): Promise<Loaded> {
  const one = <T>(name: string): Promise<T> => loadOptional<T>(load, name, 'workloadAttestors.sigstore');
  const [verify, bundles, specs] = await Promise.all([
    one<Verify>('@sigstore/verify'),
    one<Bundles>('@sigstore/bundle'),
    one<Specs>('@sigstore/protobuf-specs'),
  ]);
  return { verify, bundles, specs };
}
