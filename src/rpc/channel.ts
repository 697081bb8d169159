/** What callers have of a server: calls by the names of services and methods, over whatever connection there is. */
import { Fault, quote } from '../errors.ts';
import { type Clock, systemClock } from '../run/clock.ts';
import { type ConnectionPorts, CurrentConnection } from './current-connection.ts';
import type { Destination } from './dial.ts';
import { encoded } from './encoded.ts';
import { loadService } from './load.ts';
import { type CallOptions, OutgoingCall } from './outgoing-call.ts';
import { ResponseStream, UnaryResponse } from './responses.ts';

export type { CallOptions } from './outgoing-call.ts';

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

/** Deadlines are kept in the time of the machine: it is a network that they bound, and a test's clock moves none. */
const deadlines: Clock = systemClock;

/** A channel to one server. Nothing is connected yet. */
export function openChannel(destination: Destination, ports: ConnectionPorts): Channel {
  const way = new CurrentConnection(destination, ports);

  const method = (service: string, name: string) => {
    way.requireOpen();
    const definition = loadService(service)[name];
    if (definition === undefined) throw new Error(`service ${service} has no method ${quote(name)}`);
    return definition;
  };

  return {
    unary(service, name, request, options = {}) {
      return new Promise((resolve, reject) => {
        const { path, requestSerialize, responseDeserialize } = method(service, name);
        const { frame } = encoded(requestSerialize(request));
        const response = new UnaryResponse(path, responseDeserialize, resolve, reject);
        const call = new OutgoingCall(way, path, options, response, deadlines);
        response.of = call;
        call.begin(frame);
      });
    },
    stream(service, name, request, options = {}) {
      const { path, requestSerialize, responseDeserialize } = method(service, name);
      const { frame } = encoded(requestSerialize(request));
      const responses = new ResponseStream(path, responseDeserialize);
      const call = new OutgoingCall(way, path, options, responses, deadlines);
      responses.of = call;
      call.begin(frame);
      return responses;
    },
    bidi(service, name, options = {}) {
      const { path, requestSerialize, responseDeserialize } = method(service, name);
      const underWay = new Set<() => void>();
      const responses = new ResponseStream(path, responseDeserialize, () => {
        for (const fail of underWay) fail();
      });
      const call = new OutgoingCall(way, path, options, responses, deadlines);
      responses.of = call;
      call.begin();
      let isEnded = false;
      const ended = (): Fault => new Fault('call/cancelled', `${path} is over; its responses say why`);
      return {
        responses,
        end() {
          isEnded = true;
          call.end();
        },
        send(message) {
          const sent = new Promise<void>((resolve, reject) => {
            if (call.isOver || isEnded) return reject(ended());
            const fail = (): void => {
              underWay.delete(fail);
              reject(ended());
            };
            const { frame } = encoded(requestSerialize(message));
            underWay.add(fail);
            call.send(frame, (error) => {
              // One that was lost with its stream may be sent again; the end of the call is what fails it.
              if (error) return;
              underWay.delete(fail);
              resolve();
            });
          });
          // The responses report what went wrong; a caller that only reads them must not be brought down by this.
          sent.catch(() => {});
          return sent;
        },
      };
    },
    reconnect: () => way.reconnect(),
    get isWaiting() {
      return way.isWaiting;
    },
    close: () => way.close(),
  };
}
