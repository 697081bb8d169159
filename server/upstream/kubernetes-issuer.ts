/**
 * Upstream `cert-manager`: an issuer of cert-manager in Kubernetes signs our authority. A request is named by its key, so
 * that one which waits for somebody's approval is found again, however often the server asks or starts.
 */
import { hash } from 'node:crypto';
import type { Certificate } from '../../src/crypto/certificate.ts';
import { parseCsr } from '../../src/crypto/csr.ts';
import { pemDecode, pemEncode } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import { type JsonAnswer, type JsonClient, jsonClient } from '../../src/keys/json-client.ts';
import { readFileOf } from '../../src/keys/secret-file.ts';
import { type Clock, sleep } from '../../src/run/clock.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';
import { isRoot, readCertificate, rootsIn, untainted } from './certificate-files.ts';
import type { Upstream } from './upstream.ts';

export interface CertManagerOptions {
  readonly namespace: string;
  readonly issuer: string;
  readonly issuerKind: string;
  readonly issuerGroup: string;
  /** Of the API of Kubernetes. */
  readonly address: string;
  readonly caFile: string;
  /** Read at each call: it is rotated. */
  readonly tokenFile: string;
  /** Roots, where the issuer does not tell its own. */
  readonly bundleFile?: string;
}

/** A request that is not ready is looked at this often, milliseconds, and this many times; then it waits for the next call. */
const lookEvery = 1_000;
const looks = 10;

interface CertificateRequest {
  readonly status?: {
    readonly certificate?: string;
    readonly ca?: string;
    readonly conditions?: readonly { type: string; status: string; reason?: string; message?: string }[];
  };
}

export function certManagerUpstream(options: CertManagerOptions, { clock }: { clock: Clock }): Upstream {
  const { namespace, bundleFile } = options;
  const collection = `/apis/cert-manager.io/v1/namespaces/${namespace}/certificaterequests`;
  let client: JsonClient | undefined;

  async function call(method: string, path: string, signal: AbortSignal, body?: object): Promise<JsonAnswer> {
    client ??= jsonClient(options.address, { ca: await readFileOf(options.caFile, 'roots of Kubernetes') });
    const token = (await readFileOf(options.tokenFile, 'token for Kubernetes')).trim();
    const headers = { authorization: `Bearer ${token}` };
    const answer = await client.call(method, path, { headers, body, signal }).catch((error: unknown) => {
      throw unavailable(`${quote(options.address)} cannot be reached`, error);
    });
    if (answer.status >= 500 || answer.status === 429)
      throw unavailable(`${quote(options.address)} failed with status ${answer.status}`, messageIn(answer));
    return answer;
  }

  async function roots(chain: readonly Certificate[]): Promise<readonly X509Authority[]> {
    if (bundleFile !== undefined) return rootsIn(bundleFile);
    const found = chain.filter(isRoot);
    if (found.length > 0) return found.map(({ der }) => untainted(der));
    throw new Fault('upstream/refused', `issuer ${quote(options.issuer)} does not tell its root`, {
      hint: 'Give upstream.certManager.bundleFile.',
    });
  }

  /** Asks, unless the same key was asked for already. */
  async function ask(name: string, csr: Buffer, ttl: number, signal: AbortSignal): Promise<CertificateRequest> {
    const { issuer, issuerKind: kind, issuerGroup: group } = options;
    const body = {
      apiVersion: 'cert-manager.io/v1',
      kind: 'CertificateRequest',
      metadata: { name, namespace, labels: { 'app.kubernetes.io/managed-by': 'mutual' } },
      spec: {
        request: Buffer.from(pemEncode('CERTIFICATE REQUEST', csr)).toString('base64'),
        isCA: true,
        usages: ['cert sign', 'crl sign'],
        duration: `${Math.max(Math.floor(ttl / 1000), 1)}s`,
        issuerRef: { name: issuer, kind, group },
      },
    };
    const answer = await call('POST', collection, signal, body);
    if (answer.status === 404) throw refused(`has no cert-manager, or no namespace ${quote(namespace)}`, answer);
    if (answer.status !== 409 && answer.status >= 300)
      throw refused(`refuses a CertificateRequest in namespace ${quote(namespace)}`, answer);
    return look(name, signal);
  }

  async function look(name: string, signal: AbortSignal): Promise<CertificateRequest> {
    const answer = await call('GET', `${collection}/${name}`, signal);
    if (answer.status >= 300) throw refused(`refuses to show CertificateRequest ${quote(name)}`, answer);
    return (answer.body ?? {}) as CertificateRequest;
  }

  async function remove(name: string, signal: AbortSignal): Promise<void> {
    const answer = await call('DELETE', `${collection}/${name}`, signal);
    if (answer.status >= 300 && answer.status !== 404)
      throw refused(`refuses to remove CertificateRequest ${quote(name)}`, answer);
  }

  return {
    name: 'cert-manager',
    async mint(csr, ttl, signal) {
      const name = `mutual-${hash('sha256', parseCsr(csr).spki).slice(0, 32)}`;
      let request = await ask(name, csr, ttl, signal);
      for (let looked = 1; !isOver(request) && looked < looks; looked++) {
        await sleep(clock, lookEvery, signal);
        request = await look(name, signal);
      }
      const failure = failureOf(request);
      if (failure !== undefined) {
        // The next call asks anew.
        await remove(name, signal);
        throw new Fault('upstream/refused', `issuer ${quote(options.issuer)} of cert-manager refuses: ${failure}`, {
          hint: `See the issuer in namespace ${quote(namespace)}, and who may approve its requests.`,
        });
      }
      const { certificate, ca } = request.status ?? {};
      if (!certificate) {
        throw new Fault(
          'upstream/unavailable',
          `CertificateRequest ${quote(name)} in namespace ${quote(namespace)} is not ready${saying(request)}`,
          { hint: 'It may have to be approved: cmctl approve. It is looked at again.' },
        );
      }
      const chain = [...certificates(certificate, name), ...certificates(ca, name)];
      const minted = { chain: chain.map(({ der }) => der), roots: await roots(chain) };
      await remove(name, signal);
      return minted;
    },
    ...(bundleFile !== undefined && { state: async () => ({ x509Authorities: await rootsIn(bundleFile) }) }),
    close: () => client?.close(),
  };
}

const conditionOf = ({ status }: CertificateRequest, type: string) =>
  status?.conditions?.find((one) => one.type === type);

const isOver = (request: CertificateRequest): boolean =>
  Boolean(request.status?.certificate) || failureOf(request) !== undefined;

/** In cert-manager's words; undefined for one that may still be signed. */
function failureOf(request: CertificateRequest): string | undefined {
  for (const type of ['Denied', 'InvalidRequest']) {
    const found = conditionOf(request, type);
    if (found?.status === 'True') return `${type}${found.message ? `, ${found.message.slice(0, 300)}` : ''}`;
  }
  const ready = conditionOf(request, 'Ready');
  return ready?.reason === 'Failed' ? (ready.message?.slice(0, 300) ?? 'Failed') : undefined;
}

function saying(request: CertificateRequest): string {
  const { message } = conditionOf(request, 'Ready') ?? {};
  return message ? `: ${message.slice(0, 300)}` : '';
}

/** Those in PEM in base64. */
function certificates(text: string | undefined, name: string): readonly Certificate[] {
  if (!text) return [];
  const pem = Buffer.from(text, 'base64').toString('utf8');
  const what = `CertificateRequest ${name}`;
  return pemDecode(pem, 'CERTIFICATE', what).map((der) => readCertificate(der, what));
}

function messageIn({ status, body }: JsonAnswer): string {
  const said = typeof body?.message === 'string' ? `: ${body.message.slice(0, 500)}` : '';
  return `status ${status}${said}`;
}

function refused(what: string, answer: JsonAnswer): Fault {
  return new Fault('upstream/refused', `the API of Kubernetes ${what}`, {
    hint: 'See what the service account of the server may do; the log of the server has the answer.',
    detail: messageIn(answer),
  });
}

function unavailable(what: string, detail: unknown): Fault {
  return new Fault('upstream/unavailable', `the API of Kubernetes at ${what}`, {
    hint: 'What was issued goes on working; it is asked again.',
    detail: String(detail),
    cause: detail,
  });
}
