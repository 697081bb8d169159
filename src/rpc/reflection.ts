/**
 * gRPC server reflection, v1 and v1alpha (Workload Endpoint §7). Descriptors are made when the first caller asks: few do.
 * One message is answered at a time and each call passes the guard like any other.
 */
import { createRequire } from 'node:module';
import type { MethodDefinition } from '@grpc/grpc-js';
import { type Call, encoded, type Handler, type Send } from './call.ts';
import { packageFiles, protoDirectory } from './load.ts';

interface Answerer {
  answer(request: Buffer): Buffer;
}

const versions = ['grpc.reflection.v1', 'grpc.reflection.v1alpha'] as const;
const require = createRequire(import.meta.url);

/** The services to register, which tell of the services called `names` and of themselves. */
export function reflection(
  names: readonly string[],
): { definition: MethodDefinition<object, object>; handler: Handler }[] {
  let answerers: ReadonlyMap<string, Answerer> | undefined;
  return versions.map((version) => {
    const path = `/${version}.ServerReflection/ServerReflectionInfo`;
    const bytes = (message: object): Buffer => message as Buffer;
    const asIs = (message: Buffer): object => message;
    return {
      definition: {
        path,
        requestStream: true,
        responseStream: true,
        requestSerialize: bytes,
        requestDeserialize: asIs,
        responseSerialize: bytes,
        responseDeserialize: asIs,
      },
      async handler(requests: AsyncIterable<Buffer>, _call: Call, send: Send) {
        for await (const request of requests) {
          answerers ??= load(names);
          await send(encoded((answerers.get(path) as Answerer).answer(request)));
        }
      },
    };
  });
}

function load(names: readonly string[]): ReadonlyMap<string, Answerer> {
  const { ReflectionService } = require('@grpc/reflection') as typeof import('@grpc/reflection');
  const loader = require('@grpc/proto-loader') as typeof import('@grpc/proto-loader');
  const files = names.flatMap((name) => packageFiles[name.slice(0, Math.max(name.lastIndexOf('.'), 0))] ?? []);
  const contracts = loader.loadSync([...new Set(files)], { keepCase: true, includeDirs: [protoDirectory as string] });
  const answerers = new Map<string, Answerer>();
  // The library wants to add itself to a server; what it adds is taken here instead, its stream replaced by one message.
  const collector = {
    addService(
      definition: Record<string, MethodDefinition<object, object>>,
      implementation: Record<string, (stream: unknown) => void>,
    ) {
      for (const [name, method] of Object.entries(definition)) {
        let onData: (request: object) => void = () => {};
        let response: object | undefined;
        implementation[name]?.({
          on(event: string, told: (request: object) => void) {
            if (event === 'data') onData = told;
          },
          write(message: object) {
            response = message;
          },
          end: () => {},
        });
        answerers.set(method.path, {
          answer(request) {
            onData(method.requestDeserialize(request));
            return method.responseSerialize(response as object);
          },
        });
      }
    },
  };
  const service = new ReflectionService(contracts, { services: [...names] });
  service.addToServer(collector as unknown as Parameters<typeof service.addToServer>[0]);
  return answerers;
}
