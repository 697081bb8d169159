/**
 * A stand-in for Vault: its Transit engine and its logins, over real HTTP. It makes real keys and really signs, refuses
 * every field and header that Vault's API does not have there, and keeps time by the clock it is given.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { generateKeyAside, type KeyType } from '../../src/crypto/algorithms.ts';
import { derSignature } from '../../src/crypto/ecdsa-signature.ts';
import type { Clock } from '../../src/run/clock.ts';
import { publicPem, signDigest } from './sign-digest.ts';

interface TransitKey {
  type: string;
  privateKey: KeyObject;
  made: number;
  deletable: boolean;
}

interface Lease {
  ends: number;
  lease: number;
  renewable: boolean;
  /** Past this no renewal goes, as Vault's max TTL. */
  last: number;
}

export interface FakeTransit {
  readonly address: string;
  readonly keys: Map<string, TransitKey>;
  /** `POST auth/approle/login`, in order. */
  readonly calls: string[];
  /** Seconds that a login is good for, and its longest. */
  ttl: number;
  maxTtl: number;
  /** Answers everything with this instead. */
  answer: { status: number; body: string } | undefined;
  /** Does not answer at all. */
  silent: boolean;
  /** Ends every token that was given. */
  revokeAll(): void;
  addToken(value: string, lease: Partial<Lease>): void;
  down(): Promise<void>;
  up(): Promise<void>;
  close(): Promise<void>;
}

export interface FakeTransitWishes {
  readonly clock: Clock;
  readonly namespace?: string;
  readonly mount?: string;
  /** For a listener with TLS that asks for a client certificate. PEM. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca: string };
}

const types: Readonly<Record<string, KeyType>> = {
  'ecdsa-p256': 'ec-p256',
  'ecdsa-p384': 'ec-p384',
  'rsa-2048': 'rsa-2048',
  'rsa-3072': 'rsa-3072',
  'rsa-4096': 'rsa-4096',
};
const hashes: Readonly<Record<string, string>> = { 'sha2-256': 'sha256', 'sha2-384': 'sha384' };

class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export async function fakeTransit(wishes: FakeTransitWishes): Promise<FakeTransit> {
  const { clock, namespace, mount = 'transit' } = wishes;
  const keys = new Map<string, TransitKey>();
  const tokens = new Map<string, Lease>();
  const wrapping = randomBytes(32);
  let server: Server;
  let port = 0;
  const fake: FakeTransit = {
    get address() {
      return `${wishes.tls ? 'https' : 'http'}://127.0.0.1:${port}`;
    },
    keys,
    calls: [],
    ttl: 3600,
    maxTtl: 24 * 3600,
    answer: undefined,
    silent: false,
    revokeAll: () => tokens.clear(),
    addToken(value, lease) {
      tokens.set(value, {
        ends: Number.POSITIVE_INFINITY,
        lease: 0,
        renewable: false,
        last: Number.POSITIVE_INFINITY,
        ...lease,
      });
    },
    async down() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
    async up() {
      await listen();
    },
    async close() {
      if (server.listening) await fake.down();
    },
  };

  /** The fields that a request may have, each with what it must be. */
  function only(body: Record<string, unknown>, shape: Record<string, (value: unknown) => boolean>): void {
    for (const [field, value] of Object.entries(body)) {
      const check = shape[field];
      if (check === undefined) throw new Refusal(400, `unknown field ${field}`);
      if (!check(value)) throw new Refusal(400, `field ${field} is ${JSON.stringify(value)}`);
    }
    for (const field of Object.keys(shape)) {
      if (!field.endsWith('?') && body[field] === undefined && !shape[field]!(undefined))
        throw new Refusal(400, `field ${field} is missing`);
    }
  }
  const is =
    (...values: unknown[]) =>
    (value: unknown): boolean =>
      values.includes(value);
  const base64 = (value: unknown): boolean =>
    typeof value === 'string' && Buffer.from(value, 'base64').toString('base64') === value;

  function newLogin(): object {
    const value = `s.${randomBytes(12).toString('hex')}`;
    const lease = fake.ttl * 1000;
    tokens.set(value, { lease, ends: clock.now() + lease, renewable: true, last: clock.now() + fake.maxTtl * 1000 });
    return { auth: { client_token: value, lease_duration: fake.ttl, renewable: true } };
  }

  async function answerTo(
    method: string,
    path: string,
    body: Record<string, unknown>,
    request: IncomingMessage,
  ): Promise<object | undefined> {
    if (request.headers['x-vault-namespace'] !== namespace) throw new Refusal(403, 'permission denied');
    if (request.headers['x-vault-request'] !== 'true') throw new Refusal(412, 'missing X-Vault-Request');
    if (/^auth\/.+\/login$/.test(path)) return login(path, body, request);
    const token = String(request.headers['x-vault-token']);
    const lease = tokens.get(token);
    if (lease === undefined || lease.ends <= clock.now()) throw new Refusal(403, 'permission denied');
    if (`${method} ${path}` === 'GET auth/token/lookup-self') {
      const left = Number.isFinite(lease.ends) ? Math.floor((lease.ends - clock.now()) / 1000) : 0;
      return { data: { id: token, ttl: left, renewable: lease.renewable } };
    }
    if (`${method} ${path}` === 'POST auth/token/renew-self') {
      only(body, {});
      if (!lease.renewable) throw new Refusal(400, 'lease is not renewable');
      lease.ends = Math.min(clock.now() + lease.lease, lease.last);
      return {
        auth: { client_token: token, lease_duration: Math.floor((lease.ends - clock.now()) / 1000), renewable: true },
      };
    }
    if (!path.startsWith(`${mount}/`)) throw new Refusal(404, '');
    return transit(method, path.slice(mount.length + 1).split('/'), body);
  }

  function login(path: string, body: Record<string, unknown>, request: IncomingMessage): object {
    if (request.headers['x-vault-token'] !== undefined) throw new Refusal(400, 'a login with a token');
    switch (path) {
      case 'auth/approle/login':
        only(body, { role_id: is('the-role'), secret_id: is('the-secret') });
        return newLogin();
      case 'auth/kubernetes/login':
        only(body, { role: is('mutual'), jwt: is('the.service.account') });
        return newLogin();
      case 'auth/cert/login': {
        only(body, { name: is('mutual', undefined) });
        const socket = request.socket as TLSSocket;
        if (!socket.authorized) throw new Refusal(400, 'invalid certificate or no client certificate supplied');
        return newLogin();
      }
      default:
        throw new Refusal(404, '');
    }
  }

  async function transit(method: string, path: string[], body: Record<string, unknown>): Promise<object | undefined> {
    const [what, name = '', rest] = path;
    if (what === 'keys' && path.length === 1 && method === 'LIST') {
      if (keys.size === 0) throw new Refusal(404, '');
      return { data: { keys: [...keys.keys()].sort() } };
    }
    if (!/^\w(([\w-.]+)?\w)?$/.test(name)) throw new Refusal(404, '');
    const key = keys.get(name);
    if (what === 'keys' && path.length === 2) {
      if (method === 'POST') {
        only(body, {
          type: (value) => Object.hasOwn(types, String(value)),
          exportable: is(false),
          allow_plaintext_backup: is(false),
        });
        if (key === undefined) {
          const { privateKey } = await generateKeyAside(types[String(body.type)]!);
          keys.set(name, { type: String(body.type), privateKey, made: clock.now(), deletable: false });
        }
        return undefined;
      }
      if (method === 'GET') {
        if (key === undefined) throw new Refusal(404, '');
        const pem = publicPem(key.privateKey);
        const version = {
          public_key: pem,
          creation_time: new Date(key.made).toISOString().replace('Z', '000000Z'),
          name: 'x',
        };
        return { data: { type: key.type, latest_version: 1, keys: { 1: version } } };
      }
      if (method === 'DELETE') {
        if (key === undefined) throw new Refusal(400, 'could not delete key; not found');
        if (!key.deletable) throw new Refusal(400, 'deletion is not allowed for this key');
        keys.delete(name);
        return undefined;
      }
    }
    if (what === 'keys' && rest === 'config' && method === 'POST') {
      only(body, { deletion_allowed: is(true) });
      if (key === undefined) throw new Refusal(400, `no existing key named ${name} could be found`);
      key.deletable = true;
      return undefined;
    }
    if (what === 'sign' && method === 'POST' && path.length === 3) {
      if (key === undefined) throw new Refusal(400, 'signing key not found');
      const isRsa = key.type.startsWith('rsa');
      only(body, {
        input: base64,
        prehashed: is(true),
        key_version: is(1),
        ...(isRsa ? { signature_algorithm: is('pkcs1v15') } : { marshaling_algorithm: is('asn1') }),
      });
      const hash = hashes[rest!];
      if (hash !== (key.type === 'ecdsa-p384' ? 'sha384' : 'sha256')) throw new Refusal(400, `hash ${rest}`);
      const digest = Buffer.from(String(body.input), 'base64');
      if (digest.length !== (hash === 'sha256' ? 32 : 48)) throw new Refusal(400, 'input is no such digest');
      const raw = signDigest(key.privateKey, digest, hash);
      const signature = isRsa ? raw : derSignature(raw, key.type === 'ecdsa-p384' ? 'P-384' : 'P-256');
      return { data: { signature: `vault:v1:${signature.toString('base64')}`, key_version: 1 } };
    }
    if ((what === 'encrypt' || what === 'decrypt') && method === 'POST' && name === 'seal') {
      if (what === 'encrypt') {
        only(body, { plaintext: base64 });
        const nonce = randomBytes(12);
        const cipher = createCipheriv('aes-256-gcm', wrapping, nonce);
        const text = Buffer.concat([
          nonce,
          cipher.update(String(body.plaintext), 'base64'),
          cipher.final(),
          cipher.getAuthTag(),
        ]);
        return { data: { ciphertext: `vault:v1:${text.toString('base64')}` } };
      }
      only(body, { ciphertext: (value) => /^vault:v1:/.test(String(value)) });
      const text = Buffer.from(String(body.ciphertext).slice(9), 'base64');
      const decipher = createDecipheriv('aes-256-gcm', wrapping, text.subarray(0, 12));
      decipher.setAuthTag(text.subarray(-16));
      const plain = Buffer.concat([decipher.update(text.subarray(12, -16)), decipher.final()]);
      return { data: { plaintext: plain.toString('base64') } };
    }
    throw new Refusal(404, '');
  }

  async function listen(): Promise<void> {
    const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part as Buffer);
      const isList = request.method === 'GET' && request.url?.endsWith('?list=true');
      const method = isList ? 'LIST' : String(request.method);
      const path = String(request.url)
        .replace(/^\/v1\//, '')
        .replace(/\?list=true$/, '');
      fake.calls.push(`${method} ${path}`);
      if (fake.silent) return;
      const reply = (status: number, body: string): void => {
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(body);
      };
      if (fake.answer) return reply(fake.answer.status, fake.answer.body);
      try {
        const text = Buffer.concat(parts).toString('utf8');
        const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
        const result = await answerTo(method, path, body, request);
        if (result === undefined) {
          response.writeHead(204);
          response.end();
        } else reply(200, JSON.stringify(result));
      } catch (error) {
        const status = error instanceof Refusal ? error.status : 500;
        reply(status, JSON.stringify({ errors: (error as Error).message === '' ? [] : [(error as Error).message] }));
      }
    };
    const listener = (request: IncomingMessage, response: ServerResponse): void => {
      void handle(request, response);
    };
    server = wishes.tls
      ? createTlsServer({ ...wishes.tls, requestCert: true, rejectUnauthorized: false }, listener)
      : createServer(listener);
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  }

  await listen();
  return fake;
}
