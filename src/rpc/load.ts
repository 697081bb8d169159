/**
 * The wire contracts under proto/, read when they are first asked for. A program pays only for the services it uses, and
 * a message's codec is made when its first message passes.
 * Messages are plain objects: fields as spelled in the .proto, 64-bit integers as decimal strings, enum values by name,
 * bytes as Buffer, absent fields with their defaults (messages: null), and per oneof its own name holding the set field's.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';
import { quote } from '../errors.ts';
import { protobuf } from './protobuf.ts';
import { partsOf, printParts } from './stored-contracts.ts';
import { written, writtenCodecs } from './written-contracts.ts';

/** How messages look in TypeScript; the generated types are made with the same options (tools/proto-types.ts). */
export const messageOptions = { longs: String, enums: String, defaults: true, arrays: true, oneofs: true } as const;

/** Which files hold a package. The package of the Workload API is the empty one. */
export const packageFiles: Readonly<Record<string, readonly string[]>> = {
  '': ['workload.proto'],
  'envoy.config.core.v3': ['envoy/config/core/v3/base.proto'],
  'envoy.extensions.transport_sockets.tls.v3': ['envoy/extensions/transport_sockets/tls/v3/secret.proto'],
  'envoy.service.discovery.v3': ['envoy/service/discovery/v3/discovery.proto'],
  'envoy.service.secret.v3': ['envoy/service/secret/v3/sds.proto'],
  'envoy.type.v3': ['envoy/type/v3/semantic_version.proto'],
  'google.rpc': ['google/rpc/error_details.proto', 'google/rpc/status.proto'],
  'grpc.health.v1': ['grpc/health/v1/health.proto'],
  'mutual.agent.v1': ['mutual/agent/v1/explain.proto', 'mutual/agent/v1/status.proto'],
  'mutual.server.v1': [
    'mutual/server/v1/revocation.proto',
    'mutual/server/v1/rotation.proto',
    'mutual/server/v1/sync.proto',
  ],
  'spiffe.broker': ['broker.proto'],
  'spire.agent.debug.v1': ['spire/api/agent/debug/v1/debug.proto'],
  'spire.api.agent.delegatedidentity.v1': ['spire/api/agent/delegatedidentity/v1/delegatedidentity.proto'],
  'spire.api.agent.logger.v1': ['spire/api/agent/logger/v1/logger.proto'],
  'spire.api.server.agent.v1': ['spire/api/server/agent/v1/agent.proto'],
  'spire.api.server.bundle.v1': ['spire/api/server/bundle/v1/bundle.proto'],
  'spire.api.server.debug.v1': ['spire/api/server/debug/v1/debug.proto'],
  'spire.api.server.entry.v1': ['spire/api/server/entry/v1/entry.proto'],
  'spire.api.server.localauthority.v1': ['spire/api/server/localauthority/v1/localauthority.proto'],
  'spire.api.server.logger.v1': ['spire/api/server/logger/v1/logger.proto'],
  'spire.api.server.svid.v1': ['spire/api/server/svid/v1/svid.proto'],
  'spire.api.server.trustdomain.v1': ['spire/api/server/trustdomain/v1/trustdomain.proto'],
  'spire.api.types': [
    'agent',
    'attestation',
    'bundle',
    'entry',
    'federateswith',
    'federationrelationship',
    'jointoken',
    'jwtsvid',
    'logger',
    'selector',
    'spiffeid',
    'status',
    'witsvid',
    'x509svid',
  ].map((name) => `spire/api/types/${name}.proto`),
};

/** Encodes and decodes one message type. `encode` throws on values of the wrong type, `decode` on malformed bytes. */
export interface MessageCodec {
  // biome-ignore lint/suspicious/noExplicitAny: the generated types say what a message holds.
  encode(message: any): Buffer;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  decode(bytes: Uint8Array): any;
}

// The parts of protobufjs that are used here.
export interface ProtoNode {
  readonly name: string;
  /** With a leading dot. */
  readonly fullName: string;
  readonly parent?: ProtoNode | null;
}
export interface ProtoType extends ProtoNode {
  readonly fieldsArray: readonly ProtoField[];
  readonly oneofsArray: readonly { readonly name: string; readonly fieldsArray: readonly ProtoField[] }[];
  readonly nestedArray: readonly ProtoNode[];
  fromObject(plain: object): object;
  toObject(message: object, options: typeof messageOptions): object;
  encode(message: object): { finish(): Buffer };
  decode(bytes: Uint8Array): object;
}
export interface ProtoField extends ProtoNode {
  readonly id: number;
  readonly type: string;
  readonly repeated: boolean;
  readonly map: boolean;
  readonly keyType?: string;
  readonly partOf?: ProtoType['oneofsArray'][number] | null;
  readonly resolvedType?: ProtoType | ProtoEnum | null;
  readonly options?: { readonly proto3_optional?: boolean };
  resolve(): unknown;
}
export interface ProtoEnum extends ProtoNode {
  readonly values: Readonly<Record<string, number>>;
}
export interface ProtoService extends ProtoNode {
  readonly methodsArray: readonly ProtoMethod[];
}
interface ProtoMethod {
  readonly name: string;
  readonly requestStream?: boolean;
  readonly responseStream?: boolean;
  readonly resolvedRequestType: ProtoType;
  readonly resolvedResponseType: ProtoType;
  resolve(): unknown;
}
export interface Protobuf {
  readonly Root: new () => ProtoRoot;
}
export interface ProtoRoot {
  resolvePath(origin: string, target: string): string;
  loadSync(files: readonly string[], options: { keepCase: true }): void;
  lookupType(name: string): ProtoType;
  lookupService(name: string): ProtoService;
  addJSON(nested: object): void;
  define(path: string, nested: object): void;
  resolveAll(): void;
  toJSON(): object;
}

/** Where the .proto files are: beside a bundle, or in the checkout. */
export const protoDirectory = ['proto', '../../proto']
  .map((relative) => fileURLToPath(new URL(relative, import.meta.url)))
  .find((path) => existsSync(join(path, 'workload.proto')));

let root: ProtoRoot | undefined;
/** Null when there is no build. */
let parts: ((name: string) => void) | null | undefined;
const loadedPackages = new Set<string>();
const codecs = new Map<string, MessageCodec>();
const services = new Map<string, ServiceDefinition>();
const writtenCodec = written && writtenCodecs(written, messageOptions);

/**
 * A service by its full name, such as `spire.api.server.agent.v1.Agent` or `SpiffeWorkloadAPI`.
 * Throws when there is no such service: a defect, not an input.
 */
export function loadService(fullName: string): ServiceDefinition {
  let definition = services.get(fullName);
  if (definition === undefined) {
    definition = Object.fromEntries(
      methodsOf(fullName).map((method) => [method.name, methodDefinition(fullName, method)]),
    );
    services.set(fullName, definition);
  }
  return definition;
}

/** The codec of a message by its full name, such as `spire.api.types.Entry`. Throws when there is no such message. */
export function messageCodec(fullName: string): MessageCodec {
  let codec = codecs.get(fullName);
  if (codec === undefined) {
    codec = writtenCodec?.(fullName) ?? codecOf(rootHolding(fullName).lookupType(fullName));
    codecs.set(fullName, codec);
  }
  return codec;
}

/** Every contract as a text for a build to store as `descriptor.json` in its proto directory: that reads faster. */
export function printDescriptor(): string {
  return printParts(everyContract());
}

/** Every contract, read from its file. */
export function everyContract(): ProtoRoot {
  const all = newRoot();
  all.loadSync(Object.values(packageFiles).flat(), { keepCase: true });
  return all;
}

interface Method {
  readonly name: string;
  readonly request: MessageCodec;
  readonly response: MessageCodec;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

function methodsOf(service: string): Method[] {
  if (written && writtenCodec) {
    const methods = written.services[service];
    if (methods === undefined) throw noContract(service);
    return Object.entries(methods).map(([name, [request, response, requestStream, responseStream]]) => ({
      name,
      request: writtenCodec(request),
      response: writtenCodec(response),
      requestStream,
      responseStream,
    }));
  }
  return rootHolding(service)
    .lookupService(service)
    .methodsArray.map((method) => {
      method.resolve();
      return {
        name: method.name,
        request: codecOf(method.resolvedRequestType),
        response: codecOf(method.resolvedResponseType),
        requestStream: method.requestStream === true,
        responseStream: method.responseStream === true,
      };
    });
}

function methodDefinition(
  service: string,
  { name, request, response, requestStream, responseStream }: Method,
): MethodDefinition<object, object> {
  return {
    path: `/${service}/${name}`,
    requestStream,
    responseStream,
    requestSerialize: request.encode,
    requestDeserialize: request.decode,
    responseSerialize: response.encode,
    responseDeserialize: response.decode,
  };
}

function codecOf(type: ProtoType): MessageCodec {
  return {
    encode: (message) => type.encode(type.fromObject(message)).finish(),
    decode: (bytes) => type.toObject(type.decode(bytes), messageOptions),
  };
}

/** The contracts, holding at least the package of `fullName`. */
export function rootHolding(fullName: string): ProtoRoot {
  const name = fullName.slice(0, Math.max(fullName.lastIndexOf('.'), 0));
  const files = packageFiles[name];
  if (files === undefined) throw noContract(fullName);
  root ??= newRoot();
  if (!loadedPackages.has(name)) {
    const stored = storedParts(root);
    if (stored) stored(name);
    else root.loadSync(files, { keepCase: true });
    loadedPackages.add(name);
  }
  return root;
}

const noContract = (fullName: string): Error =>
  new Error(`no contract under proto/ has the package of ${quote(fullName)}`);

function newRoot(): ProtoRoot {
  const { Root } = protobuf();
  const fresh: ProtoRoot = new Root();
  const directory = contracts();
  fresh.resolvePath = (_origin, target) => (target.startsWith('google/protobuf/') ? target : join(directory, target));
  return fresh;
}

/** Takes packages from what a build has stored, if this is one. */
function storedParts(into: ProtoRoot): ((name: string) => void) | undefined {
  if (parts === undefined) {
    const path = join(contracts(), 'descriptor.json');
    parts = existsSync(path) ? partsOf(readFileSync(path, 'utf8'), into) : null;
  }
  return parts ?? undefined;
}

function contracts(): string {
  if (protoDirectory === undefined) throw new Error('the directory proto/ is missing from this installation');
  return protoDirectory;
}
