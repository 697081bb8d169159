/** Calls to a program on its Unix socket, for the length of one command. */
import { Fault, Status } from '../src/errors.ts';
import type { Ports } from './ports.ts';
import { type Choice, chooseSocket, nobodyAnswers, type Socket } from './socket-choice.ts';

// biome-ignore lint/suspicious/noExplicitAny: messages as the loader gives them
export type Message = any;

export interface Caller {
  readonly socket: Socket;
  /** One call and its answer. `service` is the full name. */
  call(service: string, method: string, request: object, options?: CallOptions): Promise<Message>;
  /** One call and its stream of answers. */
  stream(service: string, method: string, request: object, options?: CallOptions): AsyncIterable<Message>;
}

export interface CallOptions {
  readonly deadlineMs?: number;
  readonly metadata?: Record<string, string>;
  readonly signal?: AbortSignal;
}

/** Milliseconds a server may take for one call: longer than it waits for its database, of which its answer then tells. */
const patience = 45_000;

/** Opens the socket that flags, variables or defaults name, does the work, and closes it. */
export async function withCaller<T>(
  choice: Choice,
  given: string | undefined,
  ports: Ports,
  work: (caller: Caller) => Promise<T>,
): Promise<T> {
  const [socket, { connectUnix }] = await Promise.all([
    chooseSocket(choice, given, ports),
    import('../src/rpc/connect.ts'),
  ]);
  const channel = connectUnix(socket.path);
  try {
    return await work({
      socket,
      async call(service, method, request, options = {}) {
        try {
          return await channel.unary(service, method, request, {
            deadlineMs: patience,
            signal: ports.stop,
            ...options,
          });
        } catch (error) {
          throw await explained(error, socket);
        }
      },
      async *stream(service, method, request, options = {}) {
        try {
          yield* channel.stream(service, method, request, { signal: ports.stop, ...options });
        } catch (error) {
          throw await explained(error, socket);
        }
      },
    });
  } finally {
    channel.close();
  }
}

async function explained(error: unknown, socket: Socket): Promise<unknown> {
  if (!(error instanceof Fault)) return error;
  if (error.status === Status.UNAVAILABLE && /^cannot reach "/.test(error.message)) return nobodyAnswers(socket, error);
  if (error.status === Status.DEADLINE_EXCEEDED) {
    return new Fault('peer/unavailable', `the ${socket.who} on socket ${socket.path} did not answer in time`, {
      hint: `Try again, and see the log of the ${socket.who}.`,
      cause: error,
    });
  }
  if (error.status === Status.UNIMPLEMENTED && error.hint === undefined) {
    return new Fault(
      'method/unimplemented',
      `the program on socket ${socket.path} does not offer this: ${error.message}`,
      {
        hint: `Check that the socket (${socket.chosen}) is the ${socket.who}'s, and that this is switched on there: see "mutual config explain ${socket.who}".`,
        cause: error,
      },
    );
  }
  return error;
}
