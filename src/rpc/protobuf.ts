/**
 * protobufjs, the copy that proto-loader brings along: its own entry point builds descriptors of every message at once, three
 * times the work. A build puts its smaller half in this file's place (tools/build.ts), since it reads no .proto files.
 */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import type { Protobuf } from './load.ts';

/** The library, loaded when it is first asked for. */
export function protobuf(): Protobuf {
  return createRequire(import.meta.url)(protobufDirectory());
}

/** Where the library lies. */
export function protobufDirectory(): string {
  const loader = createRequire(import.meta.url).resolve('@grpc/proto-loader');
  return dirname(createRequire(loader).resolve('protobufjs'));
}
