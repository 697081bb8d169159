/**
 * A stand-in for Azure Key Vault's REST API, over real HTTPS, for its real SDK: it challenges for a token as Key Vault
 * does, makes real keys, really signs, and refuses every field that the API does not have there.
 */
import { constants, createPublicKey, type KeyObject, privateDecrypt, publicEncrypt, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { generateKeyAside, type KeyType } from '../../src/crypto/algorithms.ts';
import { signDigest } from './sign-digest.ts';

interface FakeKey {
  name: string;
  version: string;
  kty: string;
  privateKey: KeyObject;
  ops: string[];
  enabled: boolean;
  made: number;
  tags: Record<string, string>;
}

export interface FakeKeyVault {
  readonly url: string;
  readonly keys: Map<string, FakeKey>;
  readonly calls: string[];
  /** The only token that is taken. */
  readonly token: string;
  down(): Promise<void>;
  up(): Promise<void>;
  close(): Promise<void>;
}

const types: Readonly<Record<string, KeyType>> = {
  'EC P-256': 'ec-p256',
  'EC P-384': 'ec-p384',
  'RSA 2048': 'rsa-2048',
  'RSA 3072': 'rsa-3072',
  'RSA 4096': 'rsa-4096',
};
const algorithms: Readonly<Record<string, [string, number]>> = {
  ES256: ['sha256', 32],
  ES384: ['sha384', 48],
  RS256: ['sha256', 32],
};

/** @param tls PEM of the listener's certificate and key */
export async function fakeKeyVault(tls: { cert: string; key: string }): Promise<FakeKeyVault> {
  const keys = new Map<string, FakeKey>();
  let server: Server;
  let port = 0;
  const url = (): string => `https://localhost:${port}`;

  const refuse = (status: number, code: string, message: string): [number, object] => [
    status,
    { error: { code, message } },
  ];
  const strange = (body: Record<string, unknown>, ...fields: string[]): string | undefined =>
    Object.keys(body).find((field) => !fields.includes(field));
  const attributes = ({ enabled, made }: FakeKey): object => ({
    enabled,
    created: Math.floor(made / 1000),
    updated: Math.floor(made / 1000),
    recoveryLevel: 'Recoverable+Purgeable',
  });
  const shown = (key: FakeKey): object => {
    const { kty: _, ...jwk } = createPublicKey(key.privateKey).export({ format: 'jwk' });
    return {
      key: { kid: `${url()}/keys/${key.name}/${key.version}`, kty: key.kty, key_ops: key.ops, ...jwk },
      attributes: attributes(key),
      tags: key.tags,
    };
  };

  async function answerTo(
    method: string,
    path: string[],
    query: URLSearchParams,
    body: Record<string, unknown>,
  ): Promise<[number, object]> {
    const [what, name = '', third, verb] = path;
    if (!/^\d+[.-]\d/.test(String(query.get('api-version')))) return refuse(400, 'BadParameter', 'api-version');
    if (what !== 'keys') return refuse(404, 'NotFound', path.join('/'));
    if (method === 'GET' && name === '') {
      // Pages of two.
      const all = [...keys.values()];
      const from = Number(query.get('$skiptoken') ?? 0);
      const value = all.slice(from, from + 2).map((key) => ({
        kid: `${url()}/keys/${key.name}`,
        attributes: attributes(key),
        tags: key.tags,
      }));
      const nextLink =
        from + 2 < all.length ? `${url()}/keys?api-version=${query.get('api-version')}&$skiptoken=${from + 2}` : null;
      return [200, { value, nextLink }];
    }
    if (method === 'POST' && third === 'create') {
      const wrong = strange(body, 'kty', 'key_size', 'crv', 'key_ops', 'tags', 'attributes');
      if (wrong !== undefined) return refuse(400, 'BadParameter', wrong);
      if (Object.keys(body.attributes ?? {}).length > 0) return refuse(400, 'BadParameter', 'attributes');
      if (!/^[0-9a-zA-Z-]{1,127}$/.test(name)) return refuse(400, 'BadParameter', name);
      const kty = String(body.kty);
      const wrap = name === 'seal';
      const type = types[`${kty.replace('-HSM', '')} ${body.crv ?? body.key_size}`];
      if (type === undefined || (!wrap && String(body.key_ops) !== 'sign,verify'))
        return refuse(400, 'BadParameter', 'kty or key_ops');
      const { privateKey } = await generateKeyAside(type);
      const key: FakeKey = {
        name,
        kty,
        privateKey,
        version: randomBytes(16).toString('hex'),
        ops: (body.key_ops as string[]) ?? ['wrapKey', 'unwrapKey'],
        enabled: true,
        made: Date.now(),
        tags: (body.tags as Record<string, string>) ?? {},
      };
      keys.set(name, key);
      return [200, shown(key)];
    }
    const key = keys.get(name);
    if (key === undefined)
      return refuse(404, 'KeyNotFound', `A key with (name/id) ${name} was not found in this key vault.`);
    if (method === 'DELETE' && third === undefined) {
      keys.delete(name);
      return [
        200,
        { ...shown(key), recoveryId: `${url()}/deletedkeys/${name}`, deletedDate: 1, scheduledPurgeDate: 2 },
      ];
    }
    if (third !== undefined && third !== '' && third !== key.version)
      return refuse(404, 'KeyNotFound', `version ${third}`);
    if (!key.enabled && method !== 'PATCH')
      return refuse(403, 'Forbidden', `Operation ${verb ?? 'get'} is not allowed on a disabled key.`);
    if (method === 'GET' && verb === undefined) return [200, shown(key)];
    if (method === 'PATCH' && verb === undefined) {
      const wrong = strange(body, 'tags', 'attributes', 'key_ops');
      if (wrong !== undefined || Object.keys(body.attributes ?? {}).length > 0)
        return refuse(400, 'BadParameter', `${wrong}`);
      key.tags = body.tags as Record<string, string>;
      return [200, shown(key)];
    }
    if (method === 'POST' && (verb === 'sign' || verb === 'wrapkey' || verb === 'unwrapkey')) {
      if (strange(body, 'alg', 'value')) return refuse(400, 'BadParameter', 'fields');
      const value = Buffer.from(String(body.value), 'base64url');
      const kid = `${url()}/keys/${name}/${key.version}`;
      if (verb === 'sign') {
        const [hash, length] = algorithms[String(body.alg)] ?? [];
        if (hash === undefined || value.length !== length || !key.ops.includes('sign'))
          return refuse(400, 'BadParameter', 'alg or value');
        return [200, { kid, value: signDigest(key.privateKey, value, hash).toString('base64url') }];
      }
      if (body.alg !== 'RSA-OAEP-256') return refuse(400, 'BadParameter', 'alg');
      const padding = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' };
      const result =
        verb === 'wrapkey'
          ? publicEncrypt({ key: createPublicKey(key.privateKey), ...padding }, value)
          : privateDecrypt({ key: key.privateKey, ...padding }, value);
      return [200, { kid, value: result.toString('base64url') }];
    }
    return refuse(404, 'NotFound', `${method} ${path.join('/')}`);
  }

  const fake: FakeKeyVault = {
    get url() {
      return url();
    },
    keys,
    calls: [],
    token: `eyJ.${randomBytes(8).toString('hex')}`,
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
    server = createServer(tls, (request, response) => {
      void (async () => {
        let text = '';
        for await (const part of request) text += part;
        const asked = new URL(String(request.url), url());
        fake.calls.push(`${request.method} ${asked.pathname}`);
        if (request.headers.authorization !== `Bearer ${fake.token}`) {
          const challenge =
            'Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"';
          response.writeHead(401, { 'content-type': 'application/json', 'www-authenticate': challenge });
          response.end(JSON.stringify({ error: { code: 'Unauthorized', message: 'no token' } }));
          return;
        }
        const path = asked.pathname.split('/').slice(1);
        const [status, body] = await answerTo(
          String(request.method),
          path,
          asked.searchParams,
          text === '' ? {} : JSON.parse(text),
        );
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(body));
      })();
    });
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  }
  await listen();
  return fake;
}
