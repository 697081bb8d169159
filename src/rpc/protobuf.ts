/**
 * protobufjs, the copy that proto-loader brings along: its own entry point builds descriptors of every message at once, three
 * times the work. A build puts its smaller half in this file's place (tools/build.ts), since it reads no .proto files.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Protobuf } from './load.ts';

/** The library, loaded when it is first asked for. */
export function protobuf(): Protobuf {
  const require = createRequire(import.meta.url);
  return createRequire(join(dirname(require.resolve('@grpc/proto-loader')), 'index.js'))('protobufjs');
}
