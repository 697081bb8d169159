/**
 * A stand-in for dockerd and Podman's API service: ContainerInspect and ImageInspect on a Unix socket, in the shape that
 * dockerd 20.10 answers, checked against it in test/peers/containers.test.ts. It refuses every other question.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface FakeContainer {
  readonly pid: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly env?: readonly string[];
  readonly image?: string;
  readonly digest?: string;
  /** What the engine says of its image: `NAME@sha256:...`. */
  readonly repoDigests?: readonly string[];
}

export type Mood = 'well' | 'silent' | 'failing' | 'garbage' | 'endless';

export interface FakeEngine {
  readonly socketPath: string;
  readonly containers: Map<string, FakeContainer>;
  /** Paths asked for, in order. */
  readonly asked: string[];
  mood: Mood;
  /** Called before each answer. */
  before: (id: string) => void;
  /** Connections that are open now. */
  open(): Promise<number>;
  close(): Promise<void>;
}

/** What the engine says of a container, the members that others than us would read too. */
export function inspectAnswer(id: string, { pid, labels, env, image, digest }: FakeContainer): object {
  return {
    Id: id,
    Created: '2030-01-01T00:00:00.000000000Z',
    Path: '/bin/sleep',
    Args: ['100'],
    State: { Status: 'running', Running: pid > 0, Paused: false, Dead: false, Pid: pid, ExitCode: 0, Error: '' },
    Image: digest ?? `sha256:${'d'.repeat(64)}`,
    Name: '/boring_germain',
    RestartCount: 0,
    Driver: 'overlay2',
    Platform: 'linux',
    Config: { Hostname: id.slice(0, 12), User: '', Env: env ?? null, Image: image ?? '', Labels: labels ?? {} },
  };
}

export async function fakeEngine(): Promise<FakeEngine> {
  const directory = mkdtempSync(join(tmpdir(), 'mu-eng-'));
  const socketPath = join(directory, 'engine.sock');
  const say = (response: ServerResponse, status: number, body: object): void => {
    response.writeHead(status, { 'content-type': 'application/json', 'api-version': '1.41' });
    response.end(JSON.stringify(body));
  };
  const server = createServer((request, response) => {
    const { url = '', method } = request;
    engine.asked.push(url);
    const image = /^(?:\/v1\.\d+)?\/images\/(sha256:[0-9a-f]{64})\/json$/.exec(url)?.[1];
    if (method === 'GET' && image !== undefined) {
      if (engine.mood === 'silent') return;
      if (engine.mood === 'failing') return say(response, 500, { message: 'the engine is broken' });
      const one = [...engine.containers.values()].find(({ digest }) => digest === image);
      if (one === undefined) return say(response, 404, { message: `No such image: ${image}` });
      return say(response, 200, { Id: image, RepoTags: [], RepoDigests: one.repoDigests ?? [], Os: 'linux' });
    }
    const id = /^(?:\/v1\.\d+)?\/containers\/([0-9a-f]{64})\/json$/.exec(url)?.[1];
    if (method !== 'GET' || id === undefined) return say(response, 400, { message: `not asked by an agent: ${url}` });
    engine.before(id);
    if (engine.mood === 'silent') return;
    if (engine.mood === 'failing') return say(response, 500, { message: 'the engine is broken' });
    if (engine.mood === 'garbage') return void response.end('<html>');
    if (engine.mood === 'endless') {
      const more = (): void => {
        while (!response.destroyed && response.write(' '.repeat(65_536)));
      };
      response.on('drain', more);
      return more();
    }
    const container = engine.containers.get(id);
    if (container === undefined) return say(response, 404, { message: `No such container: ${id}` });
    say(response, 200, inspectAnswer(id, container));
  });
  const engine: FakeEngine = {
    socketPath,
    containers: new Map(),
    asked: [],
    mood: 'well',
    before: () => {},
    open: () =>
      new Promise((resolve, reject) => server.getConnections((error, n) => (error ? reject(error) : resolve(n)))),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(directory, { recursive: true, force: true });
    },
  };
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return engine;
}
