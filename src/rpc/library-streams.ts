/**
 * A grpc-js server without connections of its own: it is given the streams that are not plain calls. Loaded with the first of
 * those; a program that has only plain ones goes without the library.
 */
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Fault } from '../errors.ts';
import type { ServedMethod } from './grpc-server.ts';
import { adapt, takeBytes } from './library-call.ts';
import type { Limits } from './limits.ts';
import { refusedMessages } from './refused-messages.ts';

export type TakeStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, ...more: unknown[]) => void;

/**
 * Gives the function that takes a stream and answers it.
 * @param services by their names, the methods by theirs
 * @param onRefused told of a call that never reached its handler
 */
export function libraryStreams(
  services: ReadonlyMap<string, ReadonlyMap<string, ServedMethod>>,
  limits: Limits,
  onRefused: (method: string, connection: string, fault: Fault) => void,
): TakeStream {
  const refused = refusedMessages(onRefused);
  const server = new Server({
    interceptors: [refused.interceptor],
    'grpc.max_receive_message_length': limits.messageBytes,
    'grpc.max_send_message_length': -1,
    'grpc.enable_channelz': 0,
  });
  for (const methods of services.values()) {
    const definition: Record<string, unknown> = {};
    const implementation: UntypedServiceImplementation = {};
    for (const [name, { wire, serve }] of methods) {
      definition[name] = { ...wire, responseSerialize: takeBytes };
      implementation[name] = adapt(wire, serve, refused);
    }
    server.addService(definition as ServiceDefinition, implementation);
  }
  server.createConnectionInjector(ServerCredentials.createInsecure());
  // The library keeps its HTTP/2 server to itself, and with it what takes a stream.
  const inside = server as unknown as { readonly http2Servers: ReadonlyMap<NodeJS.EventEmitter, unknown> };
  const [take, ...others] = [...inside.http2Servers.keys()].flatMap((http2) => http2.listeners('stream'));
  if (take === undefined || others.length > 0) throw new Error('grpc-js takes its streams in a way that is not known');
  return take as TakeStream;
}
