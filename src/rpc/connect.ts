/**
 * Channels to gRPC servers. Every failure is a Fault: what the server answered keeps its status and reason; what kept us
 * from reaching it is `peer/unavailable`, or `peer/untrusted` when it was not who it should be. Nothing is retried here
 * but the connection itself, in the background, while calls fail at once.
 */
import { resolve as resolvePath } from 'node:path';
import {
  Client,
  type ClientOptions,
  credentials,
  type CallOptions as GrpcCallOptions,
  Metadata,
  type MethodDefinition,
} from '@grpc/grpc-js';
import { Fault, quote, Status } from '../errors.ts';
import { systemClock } from '../run/clock.ts';
import { loadService } from './load.ts';
import { messagesOf } from './messages.ts';
import { checkSocketPath } from './socket-path.ts';
import { SpiffeCredentials, type TlsTarget } from './spiffe-credentials.ts';
import { faultOfCall } from './status.ts';

export type { TlsTarget } from './spiffe-credentials.ts';

export interface CallOptions {
  /** From now. Without one a call may take for ever. */
  readonly deadlineMs?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Aborting it cancels the call. */
  readonly signal?: AbortSignal;
}

/** Messages are as src/rpc/load.ts says; the generated types name their fields. */
export interface Channel {
  // biome-ignore lint/suspicious/noExplicitAny: each caller names the generated type of its response.
  unary(service: string, method: string, request: object, options?: CallOptions): Promise<any>;
  /** A server's stream. Leaving the loop cancels the call. */
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  stream(service: string, method: string, request: object, options?: CallOptions): AsyncIterableIterator<any>;
  bidi(service: string, method: string, options?: CallOptions): Conversation;
  /** Takes a new connection for the calls that follow, such as after the own SVID has changed. Running calls go on. */
  reconnect(): void;
  /** Whether the other end has accepted the connection and not answered on it: it may have many others to serve first. */
  readonly isWaiting: boolean;
  /** Running calls go on; new ones fail. */
  close(): void;
}

export interface Conversation {
  /** Resolves when the transport has taken the message; rejects when the call is over. */
  send(message: object): Promise<void>;
  /** No more messages from here. */
  end(): void;
  /** Leaving the loop before its end cancels the call. */
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  readonly responses: AsyncIterableIterator<any>;
}

/** Bytes. Servers send at most 4 MiB to peers of theirs; administrators may be sent more. */
const largestMessage = 64 << 20;

const clientOptions: ClientOptions = {
  'grpc.max_receive_message_length': largestMessage,
  'grpc.max_send_message_length': -1,
  'grpc.enable_http_proxy': 0,
  'grpc.enable_channelz': 0,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.initial_reconnect_backoff_ms': 250,
  'grpc.max_reconnect_backoff_ms': 5000,
};

/** A channel over a Unix socket. Throws `config/invalid` when the path is too long. */
export function connectUnix(path: string): Channel {
  const target = `unix:${resolvePath(checkSocketPath(path))}`;
  return channel(path, () => new Client(target, credentials.createInsecure(), clientOptions), {});
}

/**
 * A channel over TLS, on TCP or a Unix socket. All addresses of a name take turns. The certificate shown and the authorities trusted are asked
 * for at each handshake, so a rotated value counts from the next connection on.
 */
export function connectTls(target: TlsTarget): Channel {
  const [at, address] = addressOf(target);
  const security = new SpiffeCredentials(target);
  const options: ClientOptions = {
    ...clientOptions,
    'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    'grpc.service_config_disable_resolution': 1,
  };
  return channel(at, () => new Client(address, security, options), security);
}

/** For eyes and for grpc-js. */
function addressOf(target: TlsTarget): readonly [string, string] {
  if ('path' in target) return [target.path, `unix:${resolvePath(checkSocketPath(target.path))}`];
  const { host, port } = target;
  const at = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  return [at, `dns:///${at}`];
}

/** What is known of connections beside what the library says. */
type Security = Partial<Pick<SpiffeCredentials, 'refusal' | 'isWaiting'>>;

function channel(at: string, open: () => Client, security: Security): Channel {
  let client = open();
  let closed = false;

  const failure = (error: unknown): Fault => {
    const fault = faultOfCall(error);
    const cause = connectionProblem(fault.message);
    if (fault.status !== Status.UNAVAILABLE || cause === undefined) return fault;
    const untrusted = security.refusal;
    if (untrusted !== undefined) return untrusted;
    return new Fault('peer/unavailable', `cannot reach ${quote(at)}: ${cause}`, {
      hint: 'Check that it runs and that this is its address.',
      cause: error,
    });
  };
  const method = (service: string, name: string): MethodDefinition<object, object> => {
    if (closed) throw new Fault('peer/unavailable', `the channel to ${quote(at)} is closed`);
    const definition = loadService(service)[name];
    if (definition === undefined) throw new Error(`service ${service} has no method ${quote(name)}`);
    return definition as MethodDefinition<object, object>;
  };

  return {
    unary(service, name, request, options = {}) {
      return new Promise((resolve, reject) => {
        const { path, requestSerialize, responseDeserialize } = method(service, name);
        if (options.signal?.aborted) throw options.signal.reason;
        const call = client.makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          request,
          headers(options),
          limits(options),
          (error, response) => {
            unfollow();
            if (error === null) resolve(response);
            else reject(options.signal?.aborted ? options.signal.reason : failure(error));
          },
        );
        const unfollow = follow(options.signal, () => call.cancel());
      });
    },
    stream(service, name, request, options = {}) {
      const { path, requestSerialize, responseDeserialize } = method(service, name);
      const call = client.makeServerStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        headers(options),
        limits(options),
      );
      return responsesOf(call, options.signal, failure);
    },
    bidi(service, name, options = {}) {
      const { path, requestSerialize, responseDeserialize } = method(service, name);
      const call = client.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        headers(options),
        limits(options),
      );
      const underWay = new Set<() => void>();
      let over = false;
      call.once('status', () => {
        over = true;
        for (const fail of underWay) fail();
      });
      const ended = (): Fault => new Fault('call/cancelled', `${path} is over; its responses say why`);
      return {
        responses: responsesOf(call, options.signal, failure),
        end: () => void call.end(),
        send(message) {
          const sent = new Promise<void>((resolve, reject) => {
            if (over || call.destroyed || call.writableEnded) return reject(ended());
            const fail = (): void => reject(ended());
            underWay.add(fail);
            call.write(message, (error: Error | null | undefined) => {
              underWay.delete(fail);
              if (error) fail();
              else resolve();
            });
          });
          // The responses report what went wrong; a caller that only reads them must not be brought down by this.
          sent.catch(() => {});
          return sent;
        },
      };
    },
    reconnect() {
      if (closed) return;
      const old = client;
      client = open();
      old.close();
    },
    get isWaiting() {
      return security.isWaiting === true;
    },
    close() {
      closed = true;
      client.close();
    },
  };
}

type IncomingStream = ReturnType<Client['makeServerStreamRequest']> | ReturnType<Client['makeBidiStreamRequest']>;

function responsesOf(
  call: IncomingStream,
  signal: AbortSignal | undefined,
  failure: (error: unknown) => Fault,
): AsyncIterableIterator<object> {
  const responses = messagesOf<object>(
    call,
    (error) => (signal?.aborted ? signal.reason : failure(error)),
    () => call.cancel(),
  );
  const unfollow = follow(signal, () => call.cancel());
  call.once('status', unfollow);
  return responses;
}

/** Calls `act` when the signal is aborted, or was; the returned function forgets it. */
function follow(signal: AbortSignal | undefined, act: () => void): () => void {
  if (signal === undefined) return () => {};
  if (signal.aborted) act();
  else signal.addEventListener('abort', act, { once: true });
  return () => signal.removeEventListener('abort', act);
}

function headers({ metadata }: CallOptions): Metadata {
  const headers = new Metadata();
  for (const [name, value] of Object.entries(metadata ?? {})) headers.set(name, value);
  return headers;
}

function limits({ deadlineMs }: CallOptions): GrpcCallOptions {
  return deadlineMs === undefined ? {} : { deadline: systemClock.now() + deadlineMs };
}

/** What grpc-js says of a connection that did not come about, without its own words around it. */
function connectionProblem(message: string): string | undefined {
  if (/^Name resolution failed|^Connection dropped/.test(message)) return message;
  if (!/^(?:round_robin: )?No connection established\./.test(message)) return undefined;
  const [, last = ''] = /.*Last error: (?:Error: )?(.*)$/s.exec(message.replace(/\.? ?Resolution note:.*$/s, '')) ?? [];
  return last.replace(/ \(\d{4}-\d\d-.*$/s, '') || 'no connection was established';
}
