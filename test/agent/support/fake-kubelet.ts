/**
 * A stand-in for kubelet: its list of pods over TLS or in the clear, in the shape of Kubernetes' PodList. It checks who asks
 * as kubelet does (bearer token or client certificate) and refuses every other question.
 */
import { createServer as createPlain, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTls } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';

export interface FakePod {
  readonly name: string;
  /** Without it `shop`. */
  readonly namespace?: string;
  readonly uid: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly owners?: readonly { kind: string; name: string; uid: string }[];
  readonly containers?: readonly FakePodContainer[];
  readonly init?: readonly FakePodContainer[];
}

export interface FakePodContainer {
  readonly name: string;
  /** Absent until it is started. */
  readonly id?: string;
  readonly image: string;
  readonly imageID: string;
}

export interface FakeKubelet {
  readonly port: number;
  pods: readonly FakePod[];
  /** What it wants to be shown; `anything` is anonymous access. */
  wants: { token: string } | 'certificate' | 'anything';
  asked: number;
  mood: 'well' | 'silent' | 'failing' | 'strange';
  open(): Promise<number>;
  close(): Promise<void>;
}

const status = (one: FakePodContainer): object => ({
  name: one.name,
  state: one.id === undefined ? { waiting: { reason: 'ContainerCreating' } } : { running: {} },
  ready: one.id !== undefined,
  restartCount: 0,
  image: one.image,
  imageID: one.imageID,
  ...(one.id === undefined ? {} : { containerID: `containerd://${one.id}` }),
});

export const podList = (pods: readonly FakePod[]): object => ({
  kind: 'PodList',
  apiVersion: 'v1',
  metadata: {},
  items: pods.map(({ name, namespace = 'shop', uid, labels, annotations, owners, containers = [], init = [] }) => ({
    metadata: { name, namespace, uid, labels, annotations, ownerReferences: owners },
    spec: {
      containers: containers.map((one) => ({ name: one.name, image: one.image })),
      serviceAccountName: 'seller',
      nodeName: 'localhost',
    },
    status: {
      phase: 'Running',
      containerStatuses: containers.map(status),
      ...(init.length === 0 ? {} : { initContainerStatuses: init.map(status) }),
    },
  })),
});

/** @param tls PEM; without it the read-only port */
export async function fakeKubelet(tls?: { cert: string; key: string; ca: string }): Promise<FakeKubelet> {
  const mayAsk = (request: IncomingMessage): number => {
    if (kubelet.wants === 'anything') return 200;
    if (kubelet.wants === 'certificate') return (request.socket as TLSSocket).authorized ? 200 : 401;
    return request.headers.authorization === `Bearer ${kubelet.wants.token}` ? 200 : 401;
  };
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    kubelet.asked += 1;
    const say = (code: number, body: unknown): void => {
      response.writeHead(code, { 'content-type': 'application/json' });
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    };
    const allowed = mayAsk(request);
    if (kubelet.mood === 'silent') return;
    if (allowed !== 200) say(allowed, 'Unauthorized');
    else if (request.method !== 'GET' || request.url !== '/pods') say(404, 'page not found');
    else if (kubelet.mood === 'failing') say(500, 'internal error');
    else if (kubelet.mood === 'strange') say(200, { kind: 'Status', apiVersion: 'v1', items: [] });
    else say(200, podList(kubelet.pods));
  };
  const server: Server =
    tls === undefined
      ? createPlain(answer)
      : createTls({ ...tls, requestCert: true, rejectUnauthorized: false }, answer);
  const connections = (): Promise<number> =>
    new Promise((resolve, reject) => server.getConnections((error, n) => (error ? reject(error) : resolve(n))));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const kubelet: FakeKubelet = {
    port: (server.address() as AddressInfo).port,
    pods: [],
    wants: 'anything',
    asked: 0,
    mood: 'well',
    open: connections,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return kubelet;
}
