/**
 * A stand-in for Google Secret Manager, over real HTTP: secrets with their labels, replication, policy and versions. It
 * refuses every field that the API does not have there, a token that it did not give, and an etag that is not the present.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface FakeSecret {
  labels: Record<string, string>;
  replication: Record<string, unknown>;
  bindings: readonly { role: string; members: readonly string[] }[];
  etag: string;
  /** Oldest first; undefined for one that was destroyed. */
  versions: (string | undefined)[];
}

export interface FakeGcpSecretManager {
  readonly endpoint: string;
  /** By name, such as `projects/p/secrets/web`. */
  readonly secrets: Map<string, FakeSecret>;
  /** Method and path of each request. */
  readonly calls: string[];
  /** In place of google-auth-library: gives a token that is taken here. */
  readonly package: object;
  /** What a forbidden account gets. */
  forbidden: boolean;
  down(): Promise<void>;
  up(): Promise<void>;
}

const token = 'ya29.given';

export async function fakeGcpSecretManager(): Promise<FakeGcpSecretManager> {
  const secrets = new Map<string, FakeSecret>();
  let server: Server;
  let port = 0;

  const refuse = (status: number, code: string, message: string): [number, object] => [
    status,
    { error: { code: status, status: code, message } },
  ];
  const strange = (body: object, ...fields: string[]): string | undefined =>
    Object.keys(body).find((field) => !fields.includes(field));
  const shown = (name: string, { versions: _, bindings: _also, ...secret }: FakeSecret): object => ({
    name,
    ...secret,
  });

  function create(project: string, id: string, body: Record<string, unknown>): [number, object] {
    const { replication, labels = {} } = body as { replication: Record<string, unknown>; labels: object };
    const name = `${project}/secrets/${id}`;
    if (!/^[A-Za-z0-9_-]{1,255}$/.test(id) || strange(body, 'replication', 'labels') !== undefined)
      return refuse(400, 'INVALID_ARGUMENT', 'secret');
    const replicas = (replication?.userManaged as { replicas?: { location?: string }[] })?.replicas;
    const isReplicated = replicas === undefined ? 'automatic' in replication : replicas.every((one) => one.location);
    if (strange(replication, 'automatic', 'userManaged') !== undefined || !isReplicated)
      return refuse(400, 'INVALID_ARGUMENT', 'replication');
    for (const [label, value] of Object.entries(labels))
      if (!/^[a-z][a-z0-9_-]{0,62}$/.test(label) || !/^[a-z0-9_-]{0,63}$/.test(value))
        return refuse(400, 'INVALID_ARGUMENT', `label ${label}=${value}`);
    if (secrets.has(name)) return refuse(409, 'ALREADY_EXISTS', name);
    const secret = {
      labels: { ...labels },
      replication,
      bindings: [],
      etag: randomBytes(4).toString('hex'),
      versions: [],
    };
    secrets.set(name, secret);
    return [200, shown(name, secret)];
  }

  function answerTo(method: string, url: URL, body: Record<string, unknown>): [number, object] {
    const path = decodeURIComponent(url.pathname).replace('/v1/', '');
    if (fake.forbidden) return refuse(403, 'PERMISSION_DENIED', `Permission denied on ${path}`);
    const project = /^(projects\/[^/]+)\/secrets$/.exec(path)?.[1];
    if (project !== undefined && method === 'POST')
      return create(project, String(url.searchParams.get('secretId')), body);
    const [, name = '', rest = ''] = /^(projects\/[^/]+\/secrets\/[^/:]+)(.*)$/.exec(path) ?? [];
    const secret = secrets.get(name);
    if (secret === undefined) return refuse(404, 'NOT_FOUND', `Secret [${path}] not found.`);
    const version = /^\/versions\/(\d+):destroy$/.exec(rest)?.[1];
    if (version !== undefined && method === 'POST') {
      if (Object.keys(body).length > 0) return refuse(400, 'INVALID_ARGUMENT', 'destroy takes nothing');
      if (secret.versions[Number(version) - 1] === undefined) return refuse(400, 'FAILED_PRECONDITION', 'DESTROYED');
      secret.versions[Number(version) - 1] = undefined;
      return [200, { name: `${name}/versions/${version}`, state: 'DESTROYED' }];
    }
    switch (`${method} ${rest}`) {
      case 'GET ':
        return [200, shown(name, secret)];
      case 'DELETE ':
        if (url.searchParams.get('etag') !== secret.etag) return refuse(400, 'FAILED_PRECONDITION', 'etag');
        secrets.delete(name);
        return [200, {}];
      case 'POST :addVersion': {
        const { data } = (body.payload ?? {}) as { data?: string };
        if (strange(body, 'payload') !== undefined || typeof data !== 'string')
          return refuse(400, 'INVALID_ARGUMENT', 'payload');
        secret.versions.push(Buffer.from(data, 'base64').toString('utf8'));
        return [
          200,
          {
            name: `${name.replace(/^projects\/[^/]+/, 'projects/1')}/versions/${secret.versions.length}`,
            state: 'ENABLED',
          },
        ];
      }
      case 'GET :getIamPolicy':
        return [200, { version: 1, etag: 'ACAB', ...(secret.bindings.length > 0 && { bindings: secret.bindings }) }];
      case 'POST :setIamPolicy': {
        const { policy } = body as { policy?: { bindings?: FakeSecret['bindings'] } };
        const isPolicy =
          strange(body, 'policy') === undefined &&
          policy?.bindings?.every(
            ({ role, members }) => role.startsWith('roles/') && members.every((one) => /^serviceAccount:.+@/.test(one)),
          );
        if (!isPolicy) return refuse(400, 'INVALID_ARGUMENT', 'policy');
        secret.bindings = policy!.bindings!;
        return [200, { version: 1, bindings: secret.bindings }];
      }
      default:
        return refuse(404, 'NOT_FOUND', `${method} ${path}`);
    }
  }

  async function listen(): Promise<void> {
    server = createServer(async (request, response) => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part as Buffer);
      const url = new URL(request.url!, 'http://localhost');
      fake.calls.push(`${request.method} ${url.pathname}`);
      const isKnown = request.headers.authorization === `Bearer ${token}`;
      const text = Buffer.concat(parts).toString('utf8');
      const [status, body] = isKnown
        ? answerTo(request.method!, url, text === '' ? {} : JSON.parse(text))
        : refuse(401, 'UNAUTHENTICATED', 'token');
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
  }

  const fake: FakeGcpSecretManager = {
    get endpoint() {
      return `http://127.0.0.1:${port}`;
    },
    secrets,
    calls: [],
    forbidden: false,
    package: {
      GoogleAuth: class {
        readonly scopes: readonly string[];
        constructor(config: { scopes: readonly string[] }) {
          this.scopes = config.scopes;
        }
        async getAccessToken(): Promise<string> {
          if (this.scopes.join() !== 'https://www.googleapis.com/auth/cloud-platform')
            throw new Error(`scopes ${this.scopes}`);
          return token;
        }
      },
    },
    async down() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
    up: listen,
  };
  await listen();
  return fake;
}
