/**
 * What a new agent knows its server by, before it has any bundle of its own: a file, a web page, the hash of a root
 * certificate, or, only when asked for by name, nothing.
 */
import { createHash } from 'node:crypto';
import { parseCertificate } from '../src/crypto/certificate.ts';
import { Fault, quote } from '../src/errors.ts';
import { readFileIfThere } from '../src/run/file.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import { parseBundle, parseBundlePem } from '../src/spiffe/bundle-jwks.ts';
import type { TrustDomain } from '../src/spiffe/id.ts';
import type { AgentOptions } from './config.ts';

export type Trust =
  | { readonly kind: 'bundle'; readonly bundle: Bundle }
  /** The server's certificate is believed until its bundle has been fetched. */
  | { readonly kind: 'insecure' };

export interface BootstrapPorts {
  /** GET over https as the machine trusts it; the body, at most `most` bytes. */
  fetchHttps(url: string, most: number): Promise<string>;
  /** The server's bundle over a connection that trusts `roots`, or anyone when undefined. */
  fetchBundle(roots: readonly Buffer[] | undefined): Promise<Bundle>;
}

/** The largest bundle read from a file or page, in bytes. */
const largestBundle = 4 * 1024 * 1024;

/** Throws `bundle/invalid`, `config/invalid` or `peer/untrusted`, each saying what was wrong with which source. */
export async function bootstrapTrust(
  options: Pick<AgentOptions, 'trustBundle' | 'trustBundleUrl' | 'trustRootHash' | 'insecureBootstrap'>,
  trustDomain: TrustDomain,
  ports: BootstrapPorts,
): Promise<Trust> {
  if (options.trustBundle !== undefined) return fromFile(options.trustBundle, trustDomain);
  if (options.trustBundleUrl !== undefined) {
    const text = await ports.fetchHttps(options.trustBundleUrl, largestBundle);
    return { kind: 'bundle', bundle: readBundleText(text, trustDomain, options.trustBundleUrl) };
  }
  if (options.trustRootHash !== undefined) return pinned(options.trustRootHash, ports);
  if (options.insecureBootstrap) return { kind: 'insecure' };
  throw new Fault('config/invalid', 'the agent has nothing to know its server by', {
    hint: 'Give --trust-bundle FILE, --trust-bundle-url URL or --trust-root-hash SHA256.',
  });
}

async function fromFile(path: string, trustDomain: TrustDomain): Promise<Trust> {
  const content = await readFileIfThere(path);
  if (content === undefined) {
    throw new Fault('config/invalid', `trust bundle file ${quote(path)} does not exist`, {
      hint: 'Write the output of `mutual bundle show` to it.',
    });
  }
  if (content.data.length > largestBundle)
    throw new Fault('bundle/invalid', `trust bundle file ${quote(path)} is larger than ${largestBundle} bytes`);
  return { kind: 'bundle', bundle: readBundleText(content.data.toString('utf8'), trustDomain, path) };
}

/** Reads a bundle in either form: PEM certificates, or SPIFFE JSON. */
function readBundleText(text: string, trustDomain: TrustDomain, from: string): Bundle {
  try {
    const bundle = text.trimStart().startsWith('{')
      ? parseBundle(text, trustDomain)
      : parseBundlePem(text, trustDomain);
    if (bundle.x509Authorities.length === 0) throw new Fault('bundle/invalid', 'it holds no X.509 authority');
    return bundle;
  } catch (error) {
    throw new Fault('bundle/invalid', `trust bundle ${quote(from)} cannot be used: ${(error as Error).message}`, {
      hint: 'Expected PEM certificates or a SPIFFE bundle (JSON), as `mutual bundle show` prints them.',
      cause: error,
    });
  }
}

/**
 * A root known by its hash. TLS does not carry the root, so it is asked for over a connection that proves nothing yet;
 * only the authority with that hash is taken from the answer, and a second connection must then verify against it alone.
 */
async function pinned(hash: string, ports: BootstrapPorts): Promise<Trust> {
  const wanted = hash.replaceAll(':', '').toLowerCase();
  const offered = await ports.fetchBundle(undefined);
  const root = offered.x509Authorities.find(
    ({ certificate }) => createHash('sha256').update(certificate).digest('hex') === wanted,
  );
  if (root === undefined) {
    const found = offered.x509Authorities.map(({ certificate }) =>
      createHash('sha256').update(certificate).digest('hex'),
    );
    throw new Fault('peer/untrusted', `no authority of the server has the pinned SHA-256 ${quote(wanted)}`, {
      hint: 'Compare it with the server’s root: openssl x509 -noout -fingerprint -sha256. Somebody may be answering in its place.',
      detail: `offered: ${found.join(', ')}`,
    });
  }
  parseCertificate(root.certificate);
  return { kind: 'bundle', bundle: await ports.fetchBundle([root.certificate]) };
}
