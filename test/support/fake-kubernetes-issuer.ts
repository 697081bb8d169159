/**
 * A fake: the API of Kubernetes over TLS, with the CertificateRequests of cert-manager and an issuer. It checks the token, the
 * path, every field it is sent, and the signature of the request; it signs at once unless a test has it wait or refuse.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseCsr } from '../../src/crypto/csr.ts';
import { pemDecode, pemEncode } from '../../src/crypto/pem.ts';
import type { Clock } from '../../src/run/clock.ts';
import { trustDomainId } from '../../src/spiffe/id.ts';
import { type TestAuthority, testAuthority } from './ca.ts';
import { signed } from './fake-spire-server.ts';
import { td } from './server.ts';

export interface FakeCertManager {
  readonly address: string;
  readonly caFile: string;
  readonly tokenFile: string;
  /** What signs; a test may put another in its place. */
  issuer: TestAuthority;
  root: TestAuthority;
  tellsRoot: boolean;
  /** `wait`: pending; a text: Denied with it. */
  mood: 'sign' | 'wait' | { readonly denies: string };
  /** Answered to every call instead, until it is undefined again. */
  status: number | undefined;
  readonly requests: Map<string, object>;
  readonly made: string[];
  newToken(): Promise<void>;
  close(): Promise<void>;
}

const collection = '/apis/cert-manager.io/v1/namespaces/identity/certificaterequests';
const b64 = (...ders: readonly Buffer[]) =>
  Buffer.from(ders.map((der) => pemEncode('CERTIFICATE', der)).join('')).toString('base64');

export async function fakeCertManager(clock: Clock): Promise<FakeCertManager> {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  // Its TLS certificate is looked at by the real clock.
  const web = testAuthority({ now: Date.now() });
  const shown = web.issue({ dnsNames: ['localhost'] });
  const root = testAuthority({ now: clock.now() });
  let token = 'the-first-token';
  const paths = { caFile: join(dir, 'ca.crt'), tokenFile: join(dir, 'token') };
  await writeFile(paths.caFile, pemEncode('CERTIFICATE', web.der));
  await writeFile(paths.tokenFile, `${token}\n`, { mode: 0o600 });

  const pem = (der: Buffer) => pemEncode('CERTIFICATE', der);
  const server = createServer(
    { cert: shown.chain.map(pem).join(''), key: pemEncode('PRIVATE KEY', shown.key!.exportPkcs8()) },
    (request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        const [status, body] = answer(
          request.method!,
          request.url!,
          request.headers.authorization,
          Buffer.concat(parts),
        );
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(body));
      });
    },
  );

  function answer(method: string, path: string, authorization: string | undefined, body: Buffer): [number, object] {
    const no = (status: number, message: string): [number, object] => [
      status,
      { kind: 'Status', status: 'Failure', message },
    ];
    if (fake.status !== undefined) return no(fake.status, `as the test wants: ${fake.status}`);
    if (authorization !== `Bearer ${token}`) return no(401, 'Unauthorized');
    if (!path.startsWith(collection)) return no(404, 'the server could not find the requested resource');
    const name = path.slice(collection.length + 1);
    if (method === 'POST' && name === '') return create(JSON.parse(body.toString('utf8')), no);
    const found = fake.requests.get(name) as { spec: Spec } | undefined;
    if (!found) return no(404, `certificaterequests.cert-manager.io "${name}" not found`);
    if (method === 'DELETE') {
      fake.requests.delete(name);
      return [200, { kind: 'Status', status: 'Success' }];
    }
    if (method !== 'GET') return no(405, 'method not allowed');
    return [200, { ...found, status: statusOf(found.spec) }];
  }

  interface Spec {
    request: string;
    isCA: boolean;
    usages: string[];
    duration: string;
    issuerRef: object;
  }

  // biome-ignore lint/suspicious/noExplicitAny: what was sent, looked at field by field.
  function create(sent: any, no: (status: number, message: string) => [number, object]): [number, object] {
    const { apiVersion, kind, metadata, spec, ...rest } = sent;
    const { request, isCA, usages, duration, issuerRef, ...more } = spec;
    const strange = [...Object.keys(rest), ...Object.keys(more)];
    if (strange.length > 0) return no(400, `unknown fields ${strange}`);
    if (apiVersion !== 'cert-manager.io/v1' || kind !== 'CertificateRequest') return no(400, `${apiVersion} ${kind}`);
    if (metadata.namespace !== 'identity' || !/^[a-z0-9-]{1,253}$/.test(metadata.name)) return no(400, 'bad metadata');
    if (isCA !== true || usages.join() !== 'cert sign,crl sign' || !/^\d+s$/.test(duration)) return no(400, 'bad spec');
    if (JSON.stringify(issuerRef) !== JSON.stringify({ name: 'upper', kind: 'Issuer', group: 'cert-manager.io' }))
      return no(400, 'bad issuerRef');
    const [der] = pemDecode(Buffer.from(request, 'base64').toString('utf8'), 'CERTIFICATE REQUEST', 'request');
    const csr = parseCsr(der!);
    if (!csr.verify() || csr.uris.join() !== trustDomainId(td)) return no(400, 'bad request');
    if (fake.requests.has(metadata.name)) return no(409, 'already exists');
    fake.requests.set(metadata.name, sent);
    fake.made.push(metadata.name);
    return [201, sent];
  }

  function statusOf({ request, duration }: Spec): object {
    const { mood } = fake;
    if (mood === 'wait')
      return { conditions: [{ type: 'Ready', status: 'False', reason: 'Pending', message: 'Waiting for approval' }] };
    if (mood !== 'sign')
      return { conditions: [{ type: 'Denied', status: 'True', reason: 'Policy', message: mood.denies }] };
    const [der] = pemDecode(Buffer.from(request, 'base64').toString('utf8'), 'CERTIFICATE REQUEST', 'request');
    const notAfter = clock.now() + Number.parseInt(duration, 10) * 1000;
    const { spki, subject } = parseCsr(der!);
    const end = Math.min(notAfter, fake.issuer.certificate.notAfter);
    const chain = signed(fake.issuer, spki, clock, { notAfter: end, subject });
    return {
      conditions: [{ type: 'Ready', status: 'True', reason: 'Issued' }],
      certificate: b64(...chain),
      ...(fake.tellsRoot && { ca: b64(fake.root.der) }),
    };
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const fake: FakeCertManager = {
    address: `https://localhost:${(server.address() as AddressInfo).port}`,
    ...paths,
    issuer: root,
    root,
    tellsRoot: true,
    mood: 'sign',
    status: undefined,
    requests: new Map(),
    made: [],
    async newToken() {
      token = 'the-second-token';
      await writeFile(paths.tokenFile, token);
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(dir, { recursive: true, force: true });
    },
  };
  return fake;
}
