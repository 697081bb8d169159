/** Server reflection and the standard health service, as generic gRPC tools use them. */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Client, credentials, type MethodDefinition, type ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { Fault } from '../../../src/errors.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import { type ServeOptions, serveUnix } from '../../../src/rpc/serve.ts';

const health = 'grpc.health.v1.Health';
const services = [
  { name: 'SpiffeWorkloadAPI', methods: {} },
  {
    name: health,
    methods: {
      Check(request: { service: string }) {
        if (request.service !== '') throw new Fault('thing/missing', 'unknown service');
        return { status: 'SERVING' };
      },
    },
  },
  { name: 'spire.api.server.entry.v1.Entry', methods: {} },
];

async function serve(more: Partial<ServeOptions> = {}) {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const serving = await serveUnix({ path, mode: 0o600, services, reflection: true, ...more });
  return { path, [Symbol.asyncDispose]: () => serving.close(0) };
}

const protos = join(dirname(createRequire(import.meta.url).resolve('@grpc/reflection')), '..', 'proto');

interface Answer {
  readonly listServicesResponse: { readonly service: readonly { readonly name: string }[] };
  readonly fileDescriptorResponse: { readonly fileDescriptorProto: readonly Buffer[] };
  readonly errorResponse: { readonly errorCode: number };
}

/** Asks the questions one after the other on one stream, by the library's own contract. */
async function ask(path: string, version: 'v1' | 'v1alpha', questions: readonly object[]): Promise<Answer[]> {
  const contract = loadSync(join(protos, 'grpc', 'reflection', version, 'reflection.proto'));
  const service = contract[`grpc.reflection.${version}.ServerReflection`] as ServiceDefinition;
  const method = service.ServerReflectionInfo as MethodDefinition<object, Answer>;
  const client = new Client(`unix:${path}`, credentials.createInsecure());
  const stream = client.makeBidiStreamRequest(method.path, method.requestSerialize, method.responseDeserialize);
  for (const question of questions) stream.write(question);
  stream.end();
  const answers: Answer[] = [];
  try {
    for await (const answer of stream) answers.push(answer as Answer);
  } finally {
    client.close();
  }
  return answers;
}

/** The names of messages and services in serialised FileDescriptorProtos. */
function namesIn(files: readonly Buffer[]): string[] {
  const { FileDescriptorProto } = createRequire(createRequire(import.meta.url).resolve('@grpc/proto-loader'))(
    'protobufjs/ext/descriptor',
  );
  return files.flatMap((bytes) => {
    const file = FileDescriptorProto.decode(bytes);
    return [...file.service, ...file.messageType].map(({ name }: { name: string }) =>
      file.package ? `${file.package}.${name}` : name,
    );
  });
}

/** Tools in other languages build the files one by one: each import has to be there, each type named in full. */
function assertLinked(files: readonly Buffer[]): void {
  const { FileDescriptorProto } = createRequire(createRequire(import.meta.url).resolve('@grpc/proto-loader'))(
    'protobufjs/ext/descriptor',
  );
  const read = files.map((bytes) => FileDescriptorProto.decode(bytes));
  const names = new Set(read.map(({ name }) => name));
  for (const file of read)
    for (const needed of file.dependency) assert.ok(names.has(needed), `${file.name} imports ${needed}`);
  for (const { messageType } of read) {
    for (const { field } of messageType)
      for (const { typeName } of field) assert.ok(!typeName || typeName.startsWith('.'), typeName);
  }
  assert.ok(read.some(({ dependency }) => dependency.length > 0));
}

test('WE-22 reflection lists the services that are served and describes their messages, in both versions', async () => {
  await using server = await serve();
  for (const version of ['v1', 'v1alpha'] as const) {
    const [list, workload, entry, nothing] = await ask(server.path, version, [
      { listServices: '*' },
      { fileContainingSymbol: 'SpiffeWorkloadAPI' },
      { fileContainingSymbol: 'spire.api.server.entry.v1.Entry' },
      { fileContainingSymbol: 'spire.api.server.agent.v1.Agent' },
    ]);
    assert.deepEqual(list!.listServicesResponse.service.map(({ name }: { name: string }) => name).sort(), [
      'SpiffeWorkloadAPI',
      health,
      'spire.api.server.entry.v1.Entry',
    ]);
    const found = namesIn(workload!.fileDescriptorResponse.fileDescriptorProto);
    for (const name of ['SpiffeWorkloadAPI', 'X509SVIDResponse', 'WITBundlesResponse'])
      assert.ok(found.includes(name), name);
    assert.ok(namesIn(entry!.fileDescriptorResponse.fileDescriptorProto).includes('spire.api.types.Entry'));
    for (const answer of [workload!, entry!]) assertLinked(answer.fileDescriptorResponse.fileDescriptorProto);
    assert.equal(nothing!.errorResponse.errorCode, 5);
  }
});

test('reflection passes the guard like any other call', async () => {
  await using server = await serve({
    guard(call) {
      throw new Fault('input/invalid', `not for you: ${call.method}`);
    },
  });
  await assert.rejects(
    ask(server.path, 'v1', [{ listServices: '*' }]),
    /not for you: \/grpc.reflection.v1.ServerReflection/,
  );
});

test('without the option there is no reflection', async () => {
  await using server = await serve({ reflection: false });
  await assert.rejects(ask(server.path, 'v1', [{ listServices: '*' }]), /UNIMPLEMENTED/);
});

test('a question that is not protobuf ends its stream and nothing else', async () => {
  await using server = await serve();
  const client = new Client(`unix:${server.path}`, credentials.createInsecure());
  const asIs = (bytes: Buffer): Buffer => bytes;
  const stream = client.makeBidiStreamRequest('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo', asIs, asIs);
  stream.write(Buffer.from('ffffff', 'hex'));
  await assert.rejects(
    (async () => {
      for await (const _answer of stream);
    })(),
    /INTERNAL: internal error/,
  );
  client.close();
  assert.equal((await ask(server.path, 'v1', [{ listServices: '*' }])).length, 1);
});

test('grpc.health.v1 is served like any service', async () => {
  await using server = await serve();
  const channel = connectUnix(server.path);
  assert.deepEqual(await channel.unary(health, 'Check', {}), { status: 'SERVING' });
  await assert.rejects(
    channel.unary(health, 'Check', { service: 'x' }),
    (fault: Fault) => fault.code === 'thing/missing',
  );
  await assert.rejects(
    channel.stream(health, 'Watch', {}).next(),
    (fault: Fault) => fault.code === 'method/unimplemented',
  );
  channel.close();
});
