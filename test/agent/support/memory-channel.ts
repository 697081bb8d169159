/**
 * A channel whose other end is in this process: handlers as src/rpc/serve.ts takes them, called without a network, their
 * messages and failures encoded and decoded as on the wire. It takes no timer, so a driven clock sees every step.
 */

import { asFault, Fault } from '../../../src/errors.ts';
import type { Call } from '../../../src/rpc/call.ts';
import type { Caller } from '../../../src/rpc/caller.ts';
import type { CallOptions, Channel } from '../../../src/rpc/connect.ts';
import { Encoded } from '../../../src/rpc/encoded.ts';
import { loadService } from '../../../src/rpc/load.ts';
import type { Service } from '../../../src/rpc/serve.ts';
import { serviceError } from '../../../src/rpc/service-error.ts';
import { faultOfCall } from '../../../src/rpc/status.ts';

/** Called before each call; what it throws is its outcome. */
export type Guard = (method: string, caller: Caller) => void;

export function memoryChannel(services: readonly Service[], caller: Caller, guard: Guard = () => {}): Channel {
  const closed = new AbortController();

  const open = (service: string, method: string, { signal, metadata }: CallOptions) => {
    if (closed.signal.aborted) throw new Fault('peer/unavailable', 'the channel is closed');
    const definition = loadService(service)[method];
    if (definition === undefined) throw new Error(`no method ${service}/${method}`);
    const ended = new AbortController();
    const signals = [ended.signal, ...(signal === undefined ? [] : [signal])];
    const broken = AbortSignal.any(signals);
    const call: Call = {
      method: definition.path,
      caller,
      signal: broken,
      get broken() {
        return broken.aborted ? broken.reason : undefined;
      },
      onBroken(told) {
        broken.addEventListener('abort', told, { once: true });
        return () => broken.removeEventListener('abort', told);
      },
      metadata: (name) => metadata?.[name],
    };
    const handler = services.find(({ name }) => name === service)?.methods[method];
    const run = (input: unknown, send: (message: object) => Promise<void>): unknown => {
      guard(definition.path, caller);
      if (handler === undefined) throw new Fault('method/unimplemented', `${definition.path} is not offered here`);
      return handler(input, call, send);
    };
    const request = (message: object) => definition.requestDeserialize(definition.requestSerialize(message));
    const response = (message: object | undefined) =>
      definition.responseDeserialize(
        message instanceof Encoded ? message.bytes : definition.responseSerialize(message ?? {}),
      );
    return { run, request, response, end: () => ended.abort(new Fault('call/cancelled', 'the call ended')) };
  };
  const received = (error: unknown): Fault => faultOfCall(serviceError(asFault(error)));

  const start = (service: string, method: string, input: unknown, options: CallOptions): Queue => {
    const responses = queue();
    options.signal?.addEventListener('abort', () => responses.fail(options.signal?.reason), { once: true });
    const { run, response, end } = open(service, method, options);
    responses.onLeft = end;
    void (async () => {
      try {
        await run(input, async (message) => {
          if (responses.over) throw new Fault('call/cancelled', 'the caller went away');
          responses.push(response(message));
        });
        responses.close();
      } catch (error) {
        responses.fail(received(error));
      } finally {
        end();
      }
    })();
    return responses;
  };

  return {
    async unary(service, method, message, options = {}) {
      const { run, request, response, end } = open(service, method, options);
      try {
        return response((await run(request(message), () => Promise.reject(new Error('unary')))) as object);
      } catch (error) {
        throw received(error);
      } finally {
        end();
      }
    },
    stream: (service, method, message, options = {}) =>
      start(service, method, open(service, method, options).request(message), options).iterator,
    bidi(service, method, options = {}) {
      const requests = queue();
      const { request } = open(service, method, options);
      const responses = start(service, method, requests.iterator, options);
      return {
        responses: responses.iterator,
        end: () => requests.close(),
        async send(message) {
          if (responses.over) throw new Fault('call/cancelled', 'the call is over');
          requests.push(request(message));
        },
      };
    },
    isWaiting: false,
    reconnect() {},
    close: () => closed.abort(),
  };
}

interface Queue {
  readonly iterator: AsyncIterableIterator<any>;
  readonly over: boolean;
  onLeft: () => void;
  push(message: unknown): void;
  close(): void;
  fail(error: unknown): void;
}

/** Messages in order, then an end or a failure. */
function queue(): Queue {
  const messages: unknown[] = [];
  let end: { error?: unknown } | undefined;
  let waiting: (() => void) | undefined;
  const self: Queue = {
    onLeft: () => {},
    get over() {
      return end !== undefined;
    },
    push(message) {
      messages.push(message);
      waiting?.();
    },
    close() {
      end ??= {};
      waiting?.();
    },
    fail(error) {
      end ??= { error };
      waiting?.();
    },
    iterator: {
      async next() {
        while (messages.length === 0) {
          if (end?.error !== undefined) throw end.error;
          if (end !== undefined) return { done: true, value: undefined };
          await new Promise<void>((resolve) => {
            waiting = resolve;
          });
          waiting = undefined;
        }
        return { done: false, value: messages.shift() };
      },
      async return() {
        self.close();
        self.onLeft();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    },
  };
  return self;
}
