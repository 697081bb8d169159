/**
 * A stand-in for a cluster's API server: pods by the node's name, and namespaces, over TLS, in the shape of Kubernetes' core
 * v1. It wants the agent's token and refuses every other question.
 */
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type FakePod, podList } from './fake-kubelet.ts';

export interface FakeApiServer {
  readonly port: number;
  /** By the node's name. */
  readonly pods: Map<string, readonly FakePod[]>;
  /** Labels by namespace. */
  readonly namespaces: Map<string, Readonly<Record<string, string>>>;
  token: string;
  asked: string[];
  mood: 'well' | 'silent' | 'failing';
  open(): Promise<number>;
  close(): Promise<void>;
}

export async function fakeApiServer(tls: { cert: string; key: string }): Promise<FakeApiServer> {
  const server = createServer(tls, (request, response) => {
    const url = request.url ?? '';
    fake.asked.push(url);
    const say = (code: number, body: object): void => {
      response.writeHead(code, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    };
    const status = (code: number, reason: string): void =>
      say(code, { kind: 'Status', apiVersion: 'v1', code, reason });
    if (fake.mood === 'silent') return;
    if (fake.mood === 'failing') return status(500, 'InternalError');
    if (request.headers.authorization !== `Bearer ${fake.token}`) return status(403, 'Forbidden');
    const node = /^\/api\/v1\/pods\?fieldSelector=spec\.nodeName%3D([a-z0-9.-]+)$/.exec(url)?.[1];
    const namespace = /^\/api\/v1\/namespaces\/([a-z0-9-]+)$/.exec(url)?.[1];
    if (request.method === 'GET' && node !== undefined) return say(200, podList(fake.pods.get(node) ?? []));
    const labels = namespace === undefined ? undefined : fake.namespaces.get(namespace);
    if (request.method === 'GET' && labels !== undefined)
      return say(200, { kind: 'Namespace', apiVersion: 'v1', metadata: { name: namespace, labels } });
    status(404, 'NotFound');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const fake: FakeApiServer = {
    port: (server.address() as AddressInfo).port,
    pods: new Map(),
    namespaces: new Map(),
    token: 'first.token',
    asked: [],
    mood: 'well',
    open: () =>
      new Promise((resolve, reject) => server.getConnections((error, n) => (error ? reject(error) : resolve(n)))),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return fake;
}
