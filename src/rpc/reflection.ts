/**
 * gRPC server reflection, v1 and v1alpha (Workload Endpoint §7). Descriptors are made when the first caller asks: few do.
 * One message is answered at a time and each call passes the guard like any other.
 */
import { createRequire } from 'node:module';
import type { MethodDefinition } from '@grpc/grpc-js';
import type { Call, Handler, Send } from './call.ts';
import { fileDescriptors } from './descriptors.ts';
import { encoded } from './encoded.ts';

interface Answerer {
  answer(request: Buffer): Buffer;
}
interface Question {
  readonly fileContainingSymbol?: string;
}
interface Answer {
  readonly listServicesResponse?: { readonly service: readonly { readonly name: string }[] };
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
  const contracts = { contracts: { fileDescriptorProtos: fileDescriptors(names) } };
  const answerers = new Map<string, Answerer>();
  // The library knows a symbol without a package by a name that begins with a dot, and would say and expect it so.
  const packageless = new Set(names.filter((name) => !name.includes('.')));
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
            const question = method.requestDeserialize(request) as Question;
            const symbol = question.fileContainingSymbol;
            const unqualified = symbol !== undefined && packageless.has(symbol.split('.')[0] as string);
            onData(unqualified ? { ...question, fileContainingSymbol: `.${symbol}` } : question);
            const answered = response as Answer;
            const services = answered.listServicesResponse?.service.map(({ name }) => ({
              name: name.replace(/^\./, ''),
            }));
            return method.responseSerialize({
              ...answered,
              originalRequest: question,
              ...(services === undefined ? {} : { listServicesResponse: { service: services } }),
            });
          },
        });
      }
    },
  };
  const service = new ReflectionService(contracts as never, {
    services: names.map((name) => (packageless.has(name) ? `.${name}` : name)),
  });
  service.addToServer(collector as unknown as Parameters<typeof service.addToServer>[0]);
  return answerers;
}
