/** Upstream `vault`: an issuer of the PKI engine of Vault or OpenBao signs our authority. */
import { type Certificate, parseCertificate } from '../../src/crypto/certificate.ts';
import { pemDecode, pemEncode } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { VaultOptions } from '../../src/keys/options.ts';
import type { RemotePorts } from '../../src/keys/remote-keys.ts';
import { openVault, type VaultAnswer, type VaultSession, type VaultWords } from '../../src/keys/vault-session.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';
import { isRoot, rootsIn, untainted } from './certificate-files.ts';
import type { Upstream } from './upstream.ts';

export interface VaultUpstreamOptions extends VaultOptions {
  /** Where the engine is mounted. */
  readonly pkiPath: string;
  /** Its name, or `default`. */
  readonly issuer: string;
  /** Roots, where the engine holds an intermediate alone. */
  readonly bundleFile?: string;
}

const words: VaultWords = {
  section: 'upstream.vault',
  what: 'upstream authority',
  unreachable: (detail, why = 'cannot be reached') => fault('upstream/unavailable', why, detail),
  refused: (doing, detail) => fault('upstream/refused', `refuses ${doing}`, detail),
  garbled: (what, detail) => fault('upstream/unavailable', `answered ${what}`, detail),
};

export function vaultUpstream(options: VaultUpstreamOptions, ports: RemotePorts): Upstream {
  const at = `${options.pkiPath}/issuer/${options.issuer}`;
  let opened: Promise<VaultSession> | undefined;

  /** Logged in at the first call: what was issued goes on while Vault is away, over a start of the server too. */
  async function call(...asked: Parameters<VaultSession['call']>): Promise<VaultAnswer> {
    opened ??= openVault(options, ports, words);
    const session = await opened.catch((error: unknown) => {
      opened = undefined;
      throw error;
    });
    const answer = await session.call(...asked);
    if (answer.status !== 404) return answer;
    throw words.refused(
      asked[2],
      `status 404: no issuer ${quote(options.issuer)} of a PKI engine at ${options.pkiPath}`,
    );
  }

  async function roots(chain: readonly Certificate[]): Promise<readonly X509Authority[]> {
    if (options.bundleFile !== undefined) return rootsIn(options.bundleFile);
    const found = chain.filter(isRoot);
    if (found.length > 0) return found.map(({ der }) => untainted(der));
    throw new Fault('upstream/refused', 'the chain that Vault has for its issuer does not reach a root', {
      hint: 'Import the root into the engine, or give upstream.vault.bundleFile.',
    });
  }

  return {
    name: 'vault',
    async mint(csr, ttl, signal) {
      const body = {
        csr: pemEncode('CERTIFICATE REQUEST', csr),
        ttl: `${Math.max(Math.floor(ttl / 1000), 1)}s`,
        format: 'pem',
        // The subject, and the trust domain as a URI name.
        use_csr_values: true,
      };
      const { data } = await call('POST', `${at}/sign-intermediate`, 'signing our certificate authority', body, signal);
      const chain = certificates(data.certificate, ...listOf(data.ca_chain), data.issuing_ca);
      return { chain: chain.map(({ der }) => der), roots: await roots(chain) };
    },
    async state(signal) {
      const { data } = await call('GET', `${at}/json`, 'telling its roots', undefined, signal);
      return { x509Authorities: await roots(certificates(...listOf(data.ca_chain), data.certificate)) };
    },
    async close() {
      const session = await opened?.catch(() => undefined);
      session?.close();
    },
  };
}

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** Those in texts of PEM, each once. */
function certificates(...texts: readonly unknown[]): readonly Certificate[] {
  const found = new Map<string, Certificate>();
  for (const text of texts) {
    if (typeof text !== 'string' || text.trim() === '') continue;
    try {
      for (const der of pemDecode(text, 'CERTIFICATE', 'answer of Vault'))
        found.set(der.toString('base64'), parseCertificate(der));
    } catch (error) {
      throw words.garbled('with a certificate that cannot be read', error);
    }
  }
  return [...found.values()];
}

function fault(code: 'upstream/unavailable' | 'upstream/refused', says: string, detail: unknown): Fault {
  return new Fault(code, `the upstream authority Vault ${says}`, {
    hint: 'See that it runs and what this server may do there; the log of the server has the answer.',
    ...(detail !== undefined && { detail: String(detail), cause: detail }),
  });
}
