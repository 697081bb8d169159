/**
 * Live and ready checks and metrics over plain HTTP, for supervisors and collectors. Off until configured. It answers GET
 * and HEAD of its three paths and nothing else, takes no input, and says of a failing check only what a Fault may tell.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { HostPort } from '../config/kinds.ts';
import { Fault, quote } from '../errors.ts';
import { type Clock, sleep } from '../run/clock.ts';
import type { Collected } from './metrics.ts';

/** Resolves when all is well; rejects with what is not. The signal is aborted when the answer is no longer awaited. */
export type Check = (signal: AbortSignal) => void | Promise<void>;
export type Checks = Readonly<Record<string, Check>>;

export interface ObserveOptions {
  readonly health: { readonly listen?: HostPort | undefined; readonly livePath: string; readonly readyPath: string };
  readonly metrics: { readonly listen?: HostPort | undefined };
}

export interface ObservePorts {
  readonly clock: Clock;
  /** By name, such as `store`. Nothing to check means well. */
  readonly live: Checks;
  readonly ready: Checks;
  /** Told beside those of `ready`, with no say in whether it can serve. */
  readonly told?: Checks | undefined;
  /** Needed where `metrics.listen` is given. */
  readonly collected?: Collected | undefined;
}

export interface Observing {
  /** Where each is answered, with the real port. */
  readonly health: HostPort | undefined;
  readonly metrics: HostPort | undefined;
  close(): Promise<void>;
}

type Answer = { readonly status: number; readonly type: string; readonly body: string };
type Routes = Map<string, () => Answer | Promise<Answer>>;

/** How long a check may take, milliseconds. Supervisors commonly wait one second; this is for those that wait longer. */
const checkTime = 3000;

/** Starts what is configured. Throws `state/refused` when an address cannot be listened on. */
export async function observe(options: ObserveOptions, ports: ObservePorts): Promise<Observing> {
  const { health, metrics } = options;
  const { collected } = ports;
  const checks: Routes = new Map([
    [health.livePath, () => runChecks(ports.live, ports.clock)],
    [health.readyPath, () => runChecks(ports.ready, ports.clock, ports.told)],
  ]);
  const figures: Routes = new Map(
    collected === undefined
      ? []
      : [['/metrics', async () => ({ status: 200, type: collected.contentType, body: await collected.text() })]],
  );

  const servers: Server[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(servers.map(closeServer));
  };
  try {
    const shared = health.listen !== undefined && sameAddress(health.listen, metrics.listen);
    let healthAt: HostPort | undefined;
    let metricsAt: HostPort | undefined;
    if (health.listen !== undefined) {
      const routes = shared ? new Map([...checks, ...figures]) : checks;
      healthAt = await listen(servers, health.listen, routes, 'health.listen');
      if (shared) metricsAt = healthAt;
    }
    if (metrics.listen !== undefined && !shared) {
      metricsAt = await listen(servers, metrics.listen, figures, 'metrics.listen');
    }
    return { health: healthAt, metrics: metricsAt, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Runs checks together; each has a few seconds. 200 when all of `checks` are well, else 503. */
export async function runChecks(checks: Checks, clock: Clock, told: Checks = {}): Promise<Answer> {
  const results = await Promise.all(
    Object.entries({ ...checks, ...told }).map(async ([name, check]) => [name, await runCheck(check, clock)] as const),
  );
  const well = results.every(([name, result]) => name in told || result === 'ok');
  const body = { status: well ? 'ok' : 'failing', checks: Object.fromEntries(results) };
  return { status: well ? 200 : 503, type: 'application/json', body: `${JSON.stringify(body)}\n` };
}

async function runCheck(check: Check, clock: Clock): Promise<string> {
  const ended = new AbortController();
  try {
    const late = sleep(clock, checkTime, ended.signal).then(() => {
      throw new Fault('peer/unavailable', `no answer in ${checkTime / 1000} s`);
    });
    late.catch(() => {});
    await Promise.race([(async () => check(ended.signal))(), late]);
    return 'ok';
  } catch (error) {
    return error instanceof Fault ? error.message : 'failing; the log says why';
  } finally {
    ended.abort();
  }
}

function sameAddress(a: HostPort, b: HostPort | undefined): boolean {
  return b !== undefined && a.host === b.host && a.port === b.port && a.port !== 0;
}

async function listen(servers: Server[], at: HostPort, routes: Routes, option: string): Promise<HostPort> {
  // Loaded when it is needed: importing it makes Node load its whole HTTP client too, 3 MB and 10 ms of every start.
  const { createServer } = await import('node:http');
  const server = createServer(
    { maxHeaderSize: 8192, requestTimeout: 10_000, headersTimeout: 5_000 },
    (request, response) => {
      void answer(routes, request, response);
    },
  );
  server.maxConnections = 100;
  servers.push(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'another program listens there' : error.message;
      reject(
        new Fault('state/refused', `cannot listen on ${quote(`${at.host}:${at.port}`)}: ${why}`, {
          hint: `Give ${option} another address.`,
          cause: error,
        }),
      );
    });
    server.listen(at.port, at.host, resolve);
  });
  // A broken connection is its own affair.
  server.on('error', () => {});
  server.on('clientError', (_, socket) => socket.destroy());
  const address = server.address();
  return { host: at.host, port: typeof address === 'object' && address !== null ? address.port : at.port };
}

async function answer(routes: Routes, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const route = routes.get((request.url ?? '').split('?', 1)[0]!);
  const result = await respond(route, request.method);
  response.writeHead(result.status, {
    'content-type': result.type,
    'content-length': Buffer.byteLength(result.body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(result.status === 405 ? { allow: 'GET, HEAD' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : result.body);
  request.resume();
}

async function respond(
  route: (() => Answer | Promise<Answer>) | undefined,
  method: string | undefined,
): Promise<Answer> {
  const plain = (status: number, body: string): Answer => ({ status, type: 'text/plain; charset=utf-8', body });
  if (route === undefined) return plain(404, 'not found\n');
  if (method !== 'GET' && method !== 'HEAD') return plain(405, 'only GET and HEAD\n');
  try {
    return await route();
  } catch {
    return plain(500, 'internal error\n');
  }
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
