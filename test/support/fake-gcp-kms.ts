/**
 * A stand-in for Google Cloud KMS, over real HTTP, and for the endpoint that exchanges tokens. It makes real keys and
 * really signs, takes a moment to make a version as Google does, and refuses every field that the API does not have there.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { generateKeyAside, type KeyType } from '../../src/crypto/algorithms.ts';
import { derSignature } from '../../src/crypto/ecdsa-signature.ts';
import { publicPem, signDigest } from './sign-digest.ts';

interface FakeKey {
  name: string;
  algorithm: string;
  labels: Record<string, string>;
  privateKey: KeyObject;
  state: 'PENDING_GENERATION' | 'ENABLED' | 'DISABLED' | 'DESTROY_SCHEDULED';
  /** Asked for its state so often. */
  asked: number;
}

export interface FakeGcpKms {
  readonly endpoint: string;
  readonly keyRing: string;
  readonly keys: Map<string, FakeKey>;
  readonly calls: string[];
  /** Requests that are being answered. */
  readonly busy: number;
  /** A description of a federated identity, whose token in `file` is exchanged here. */
  federation(file: string): object;
  /** In place of google-auth-library: gives a token that is taken here. */
  readonly package: object;
  /** What a forbidden account gets. */
  forbidden: boolean;
  down(): Promise<void>;
  up(): Promise<void>;
  close(): Promise<void>;
}

const types: Readonly<Record<string, [KeyType, string]>> = {
  EC_SIGN_P256_SHA256: ['ec-p256', 'sha256'],
  EC_SIGN_P384_SHA384: ['ec-p384', 'sha384'],
  RSA_SIGN_PKCS1_2048_SHA256: ['rsa-2048', 'sha256'],
  RSA_SIGN_PKCS1_3072_SHA256: ['rsa-3072', 'sha256'],
  RSA_SIGN_PKCS1_4096_SHA256: ['rsa-4096', 'sha256'],
};

const audience = '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/spiffe';

export async function fakeGcpKms(): Promise<FakeGcpKms> {
  const keyRing = 'projects/p/locations/global/keyRings/r';
  const keys = new Map<string, FakeKey>();
  const tokens = new Set<string>();
  const wrapping = randomBytes(32);
  let server: Server;
  let port = 0;
  let busy = 0;

  const refuse = (status: number, code: string, message: string): [number, object] => [
    status,
    { error: { code: status, status: code, message } },
  ];
  const strange = (body: Record<string, unknown>, ...fields: string[]): string | undefined =>
    Object.keys(body).find((field) => !fields.includes(field)) ?? fields.find((field) => body[field] === undefined);
  const shown = ({ name, labels, algorithm }: FakeKey): object => ({
    name,
    purpose: 'ASYMMETRIC_SIGN',
    createTime: '2030-01-01T00:00:00Z',
    versionTemplate: { algorithm, protectionLevel: 'SOFTWARE' },
    labels,
  });

  /** RFC 8693: a token of the machine's own buys one of Google's. */
  function token(form: URLSearchParams): [number, object] {
    const good =
      form.get('grant_type') === 'urn:ietf:params:oauth:grant-type:token-exchange' &&
      form.get('subject_token') === 'the.jwt.svid' &&
      form.get('subject_token_type') === 'urn:ietf:params:oauth:token-type:jwt' &&
      form.get('scope') === 'https://www.googleapis.com/auth/cloudkms' &&
      form.get('audience') === audience;
    if (!good) return [400, { error: 'invalid_grant', error_description: 'not the expected exchange' }];
    const access_token = `ya29.${randomBytes(8).toString('hex')}`;
    tokens.add(access_token);
    const issued_token_type = 'urn:ietf:params:oauth:token-type:access_token';
    return [200, { access_token, issued_token_type, token_type: 'Bearer', expires_in: 3600 }];
  }

  async function answerTo(method: string, url: URL, body: Record<string, unknown>): Promise<[number, object]> {
    const path = decodeURIComponent(url.pathname).replace('/v1/', '');
    if (fake.forbidden) return refuse(403, 'PERMISSION_DENIED', `Permission denied on ${path}`);
    if (path === `${keyRing}/cryptoKeys` && method === 'POST') {
      const id = String(url.searchParams.get('cryptoKeyId'));
      if (!/^[a-zA-Z0-9_-]{1,63}$/.test(id)) return refuse(400, 'INVALID_ARGUMENT', `cryptoKeyId ${id}`);
      const wrong = strange(body, 'purpose', 'versionTemplate', 'labels');
      const template = body.versionTemplate as Record<string, string>;
      const labels = body.labels as Record<string, string>;
      if (
        wrong !== undefined ||
        body.purpose !== 'ASYMMETRIC_SIGN' ||
        strange(template, 'algorithm', 'protectionLevel')
      )
        return refuse(400, 'INVALID_ARGUMENT', `field ${wrong}`);
      if (template.protectionLevel !== 'SOFTWARE') return refuse(400, 'INVALID_ARGUMENT', 'protectionLevel');
      for (const [name, value] of Object.entries(labels))
        if (!/^[a-z][a-z0-9_-]{0,62}$/.test(name) || !/^[a-z0-9_-]{0,63}$/.test(value))
          return refuse(400, 'INVALID_ARGUMENT', `label ${name}=${value}`);
      const name = `${keyRing}/cryptoKeys/${id}`;
      if (keys.has(name)) return refuse(409, 'ALREADY_EXISTS', name);
      const type = types[template.algorithm!]?.[0];
      if (type === undefined) return refuse(400, 'INVALID_ARGUMENT', `algorithm ${template.algorithm}`);
      const { privateKey } = await generateKeyAside(type);
      const key: FakeKey = {
        name,
        algorithm: template.algorithm!,
        labels,
        privateKey,
        state: 'PENDING_GENERATION',
        asked: 0,
      };
      keys.set(name, key);
      return [200, shown(key)];
    }
    if (path === `${keyRing}/cryptoKeys` && method === 'GET') {
      const wanted = [...String(url.searchParams.get('filter')).matchAll(/labels\.([a-z-]+) = ([a-z0-9_-]+)/g)];
      const all = [...keys.values()].filter(({ labels }) => wanted.every(([, name, value]) => labels[name!] === value));
      // Small pages, whatever was asked for.
      const from = Number(url.searchParams.get('pageToken') ?? 0);
      const page = all.slice(from, from + 3);
      return [
        200,
        {
          cryptoKeys: page.map(shown),
          totalSize: all.length,
          ...(from + 3 < all.length && { nextPageToken: String(from + 3) }),
        },
      ];
    }
    const seal = /\/cryptoKeys\/seal:(encrypt|decrypt)$/.exec(path)?.[1];
    if (seal !== undefined) return sealing(seal, body);
    const [, name = '', rest = ''] = /^(.+\/cryptoKeys\/[^/:]+)(.*)$/.exec(path) ?? [];
    const key = keys.get(name);
    if (key === undefined) return refuse(404, 'NOT_FOUND', path);
    switch (`${method} ${rest}`) {
      case 'GET ':
        return [200, shown(key)];
      case 'PATCH ':
        if (url.searchParams.get('updateMask') !== 'labels' || strange(body, 'labels'))
          return refuse(400, 'INVALID_ARGUMENT', 'updateMask');
        key.labels = body.labels as Record<string, string>;
        return [200, shown(key)];
      case 'GET /cryptoKeyVersions/1':
        key.asked++;
        if (key.state === 'PENDING_GENERATION' && key.asked > (key.algorithm.startsWith('RSA') ? 2 : 0))
          key.state = 'ENABLED';
        return [200, { name: `${name}/cryptoKeyVersions/1`, state: key.state, algorithm: key.algorithm }];
      case 'GET /cryptoKeyVersions/1/publicKey':
        if (key.state !== 'ENABLED') return refuse(400, 'FAILED_PRECONDITION', `${name} is ${key.state}`);
        return [200, { pem: publicPem(key.privateKey), algorithm: key.algorithm, name }];
      case 'POST /cryptoKeyVersions/1:asymmetricSign': {
        if (key.state !== 'ENABLED') return refuse(400, 'FAILED_PRECONDITION', `${name} is ${key.state}`);
        const [type, hash] = types[key.algorithm]!;
        const digest = (body.digest ?? {}) as Record<string, string>;
        const bytes = Buffer.from(digest[hash] ?? '', 'base64');
        if (strange(body, 'digest') || strange(digest, hash) || bytes.length !== (hash === 'sha256' ? 32 : 48))
          return refuse(400, 'INVALID_ARGUMENT', 'digest');
        const raw = signDigest(key.privateKey, bytes, hash);
        const signature = type.startsWith('ec') ? derSignature(raw, type === 'ec-p256' ? 'P-256' : 'P-384') : raw;
        return [200, { signature: signature.toString('base64'), name: `${name}/cryptoKeyVersions/1` }];
      }
      case 'POST /cryptoKeyVersions/1:destroy':
        if (Object.keys(body).length > 0) return refuse(400, 'INVALID_ARGUMENT', 'destroy takes nothing');
        key.state = 'DESTROY_SCHEDULED';
        return [200, { state: key.state }];
      default:
        return refuse(404, 'NOT_FOUND', `${method} ${path}`);
    }
  }

  function sealing(verb: string, body: Record<string, unknown>): [number, object] {
    const field = verb === 'encrypt' ? 'plaintext' : 'ciphertext';
    if (strange(body, field, 'additionalAuthenticatedData')) return refuse(400, 'INVALID_ARGUMENT', 'fields');
    const [data, header] = [body[field], body.additionalAuthenticatedData].map((text) =>
      Buffer.from(String(text), 'base64'),
    );
    if (verb === 'encrypt') {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', wrapping, nonce).setAAD(header!);
      const text = Buffer.concat([nonce, cipher.update(data!), cipher.final(), cipher.getAuthTag()]);
      return [200, { ciphertext: text.toString('base64') }];
    }
    const decipher = createDecipheriv('aes-256-gcm', wrapping, data!.subarray(0, 12)).setAAD(header!);
    decipher.setAuthTag(data!.subarray(-16));
    const plain = Buffer.concat([decipher.update(data!.subarray(12, -16)), decipher.final()]);
    return [200, { plaintext: plain.toString('base64') }];
  }

  const fake: FakeGcpKms = {
    get endpoint() {
      return `http://127.0.0.1:${port}`;
    },
    keyRing,
    keys,
    calls: [],
    forbidden: false,
    get busy() {
      return busy;
    },
    federation: (file) => ({
      type: 'external_account',
      audience,
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      token_url: `${fake.endpoint}/token`,
      credential_source: { file },
    }),
    package: {
      GoogleAuth: class {
        readonly scopes: readonly string[];
        constructor(config: { scopes: readonly string[] }) {
          this.scopes = config.scopes;
        }
        async getAccessToken(): Promise<string> {
          if (this.scopes.join() !== 'https://www.googleapis.com/auth/cloudkms')
            throw new Error(`scopes ${this.scopes}`);
          tokens.add('ya29.given');
          return 'ya29.given';
        }
      },
    },
    async down() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
    up: listen,
    async close() {
      if (server.listening) await fake.down();
    },
  };

  async function listen(): Promise<void> {
    server = createServer((request, response) => {
      busy++;
      void (async () => {
        const parts: Buffer[] = [];
        for await (const part of request) parts.push(part as Buffer);
        const text = Buffer.concat(parts).toString('utf8');
        const url = new URL(String(request.url), fake.endpoint);
        fake.calls.push(`${request.method} ${url.pathname}`);
        let answer: [number, object];
        try {
          if (url.pathname === '/token') answer = token(new URLSearchParams(text));
          else if (!tokens.has(String(request.headers.authorization).replace('Bearer ', '')))
            answer = refuse(401, 'UNAUTHENTICATED', 'no token');
          else answer = await answerTo(String(request.method), url, text === '' ? {} : JSON.parse(text));
        } catch (error) {
          answer = refuse(500, 'INTERNAL', String(error));
        }
        response.writeHead(answer[0], { 'content-type': 'application/json' });
        response.end(JSON.stringify(answer[1]));
      })().finally(() => {
        busy--;
      });
    });
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  }
  await listen();
  return fake;
}
