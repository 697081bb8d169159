/**
 * The revocation lists over plain HTTP, for verifiers that fetch them (RFC 5280 §4.2.1.13: lists are signed, so the way
 * they come needs no protection). Off until configured. GET and HEAD of `/crl/AUTHORITY-ID.crl` (DER) and of `/crl.pem`
 * (all of them) and nothing else; it takes no input.
 */
import { createServer, type Server } from 'node:http';
import type { HostPort } from '../../src/config/kinds.ts';
import { pemEncode } from '../../src/crypto/pem.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { StoredCrl } from '../store/store.ts';

/** The lists by authority. */
export interface HeldCrls {
  readonly crls: ReadonlyMap<string, StoredCrl>;
}

export interface CrlEndpoint {
  /** With the real port. */
  readonly address: HostPort;
  close(): Promise<void>;
}

/** Seconds for which a cache may keep a list: what a verifier that fetches learns late. */
const fresh = 60;

/** Throws `state/refused` when the address cannot be listened on. */
export async function serveCrls(at: HostPort, world: HeldCrls): Promise<CrlEndpoint> {
  const server = createServer({ maxHeaderSize: 8192, requestTimeout: 10_000, headersTimeout: 5_000 });
  server.maxConnections = 1_000;
  server.on('clientError', (_, socket) => socket.destroy());
  server.on('request', (request, response) => {
    request.resume();
    const { method } = request;
    const found = answer((request.url ?? '').split('?', 1)[0]!, world);
    const isRead = method === 'GET' || method === 'HEAD';
    const status = found === undefined ? 404 : isRead ? 200 : 405;
    const body = status === 200 ? found!.body : Buffer.from(status === 404 ? 'not found\n' : 'only GET and HEAD\n');
    response.writeHead(status, {
      'content-type': status === 200 ? found!.type : 'text/plain; charset=utf-8',
      'content-length': body.length,
      'cache-control': status === 200 ? `public, max-age=${fresh}` : 'no-store',
      'x-content-type-options': 'nosniff',
      ...(status === 405 ? { allow: 'GET, HEAD' } : {}),
    });
    response.end(method === 'HEAD' ? undefined : body);
  });
  await listen(server, at);
  const address = server.address();
  return {
    address: { host: at.host, port: typeof address === 'object' && address !== null ? address.port : at.port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answer(path: string, { crls }: HeldCrls): { type: string; body: Buffer } | undefined {
  if (path === '/crl.pem') {
    const all = [...crls.values()].map(({ der }) => pemEncode('X509 CRL', Buffer.from(der, 'base64')));
    return { type: 'application/x-pem-file', body: Buffer.from(all.join('')) };
  }
  const [, authority] = /^\/crl\/([0-9a-f]{1,128})\.crl$/.exec(path) ?? [];
  const crl = authority === undefined ? undefined : crls.get(authority);
  return crl && { type: 'application/pkix-crl', body: Buffer.from(crl.der, 'base64') };
}

function listen(server: Server, at: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'another program listens there' : error.message;
      reject(
        new Fault('state/refused', `cannot listen on ${quote(`${at.host}:${at.port}`)}: ${why}`, {
          hint: 'Give revocation.listen another address.',
          cause: error,
        }),
      );
    });
    server.listen(at.port, at.host, () => {
      server.on('error', () => {});
      resolve();
    });
  });
}
