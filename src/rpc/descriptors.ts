/**
 * The contracts as FileDescriptorProtos, which reflection hands to tools. The ones that proto-loader makes leave out what
 * each file imports and name types relatively, and tools in other languages cannot link them.
 * One file a package: where a package has several, they are merged under the package's name.
 */
import { createRequire } from 'node:module';
import {
  type ProtoEnum,
  type ProtoField,
  type ProtoNode,
  type ProtoService,
  type ProtoType,
  packageFiles,
  rootHolding,
} from './load.ts';

/** Numbers of google.protobuf.FieldDescriptorProto.Type. */
const scalarTypes: Readonly<Record<string, number>> = {
  double: 1,
  float: 2,
  int64: 3,
  uint64: 4,
  int32: 5,
  fixed64: 6,
  fixed32: 7,
  bool: 8,
  string: 9,
  bytes: 12,
  uint32: 13,
  sfixed32: 15,
  sfixed64: 16,
  sint32: 17,
  sint64: 18,
};
const messageType = 11;
const enumType = 14;
const optional = 1;
const repeated = 3;

/** Where Google's own types live. */
const googleFile = (name: string): string => {
  if (/^(Struct|Value|ListValue|NullValue)$/.test(name)) return 'google/protobuf/struct.proto';
  if (name.endsWith('Value')) return 'google/protobuf/wrappers.proto';
  return `google/protobuf/${name.toLowerCase()}.proto`;
};

interface FileParts {
  readonly name: string;
  readonly package: string;
  readonly syntax: 'proto3';
  readonly dependency: Set<string>;
  readonly messageType: object[];
  readonly enumType: object[];
  readonly service: object[];
}

/** The files that hold these services and all that they refer to, serialised. */
export function fileDescriptors(services: readonly string[]): Buffer[] {
  const files = new Map<string, FileParts>();
  const seen = new Set<ProtoNode>();

  const fileOf = (node: ProtoNode): FileParts => {
    const top = topLevel(node);
    const packageName = top.parent?.fullName.slice(1) ?? '';
    const own = packageFiles[packageName];
    const name =
      packageName === 'google.protobuf'
        ? googleFile(top.name)
        : own?.length === 1
          ? own[0]!
          : `${packageName.replaceAll('.', '/')}.proto`;
    let file = files.get(name);
    if (file === undefined) {
      file = {
        name,
        package: packageName,
        syntax: 'proto3',
        dependency: new Set(),
        messageType: [],
        enumType: [],
        service: [],
      };
      files.set(name, file);
    }
    return file;
  };
  /** Names a type from a file, which then depends on the type's own. */
  const refer = (from: FileParts, to: ProtoNode): string => {
    include(to);
    const { name } = fileOf(to);
    if (name !== from.name) from.dependency.add(name);
    return to.fullName;
  };
  const include = (node: ProtoNode): void => {
    const top = topLevel(node);
    if (seen.has(top)) return;
    seen.add(top);
    const file = fileOf(top);
    if (isService(top)) file.service.push(service(file, top));
    else if (isEnum(top)) file.enumType.push(enumeration(top));
    else file.messageType.push(message(file, top as ProtoType));
  };

  const service = (file: FileParts, { name, methodsArray }: ProtoService): object => ({
    name,
    method: methodsArray.map((method) => {
      method.resolve();
      return {
        name: method.name,
        inputType: refer(file, method.resolvedRequestType),
        outputType: refer(file, method.resolvedResponseType),
        clientStreaming: method.requestStream === true,
        serverStreaming: method.responseStream === true,
      };
    }),
  });
  const message = (file: FileParts, type: ProtoType): object => {
    const oneofs = [...type.oneofsArray].sort(
      (a, b) => Number(isOptional(a.fieldsArray[0])) - Number(isOptional(b.fieldsArray[0])),
    );
    const mapEntries: object[] = [];
    const field = (declared: ProtoField): object => {
      declared.resolve();
      const { name, id: number, partOf } = declared;
      const described = { name: fieldName(file, name), number, jsonName: jsonName(name) };
      if (declared.map) {
        const entry = mapEntryName(name);
        const key = {
          name: 'key',
          number: 1,
          label: optional,
          jsonName: 'key',
          type: scalarTypes[declared.keyType as string],
        };
        const value = { name: 'value', number: 2, label: optional, jsonName: 'value', ...fieldType(file, declared) };
        mapEntries.push({ name: entry, field: [key, value], options: { mapEntry: true } });
        return { ...described, label: repeated, type: messageType, typeName: `${type.fullName}.${entry}` };
      }
      return {
        ...described,
        label: declared.repeated ? repeated : optional,
        ...fieldType(file, declared),
        ...(partOf == null ? {} : { oneofIndex: oneofs.indexOf(partOf) }),
        ...(isOptional(declared) ? { proto3Optional: true } : {}),
      };
    };
    const fields = type.fieldsArray.map(field);
    return {
      name: type.name,
      field: fields,
      nestedType: [...type.nestedArray.filter(isMessage).map((nested) => message(file, nested)), ...mapEntries],
      enumType: type.nestedArray.filter(isEnum).map(enumeration),
      oneofDecl: oneofs.map(({ name }) => ({ name })),
    };
  };
  const fieldType = (file: FileParts, { type, resolvedType }: ProtoField): object =>
    resolvedType == null
      ? { type: scalarTypes[type] }
      : { type: isEnum(resolvedType) ? enumType : messageType, typeName: refer(file, resolvedType) };

  for (const name of services) include(rootHolding(name).lookupService(name));
  const { FileDescriptorProto } = createRequire(createRequire(import.meta.url).resolve('@grpc/proto-loader'))(
    'protobufjs/ext/descriptor',
  );
  return [...files.values()].map((file) =>
    Buffer.from(
      FileDescriptorProto.encode(
        FileDescriptorProto.fromObject({ ...file, dependency: [...file.dependency] }),
      ).finish(),
    ),
  );
}

function enumeration({ name, values }: ProtoEnum): object {
  return { name, value: Object.entries(values).map(([key, number]) => ({ name: key, number })) };
}

/** The outermost message, enum or service: what a file lists. */
function topLevel(node: ProtoNode): ProtoNode {
  let top = node;
  while (top.parent != null && isMessage(top.parent)) top = top.parent;
  return top;
}

const isMessage = (node: ProtoNode): node is ProtoType => 'fieldsArray' in node;
const isEnum = (node: ProtoNode): node is ProtoEnum => 'valuesById' in node;
const isService = (node: ProtoNode): node is ProtoService => 'methodsArray' in node;
/** Whether a field was declared `optional`; it then sits in a oneof of its own, which has to come last. */
const isOptional = (field: ProtoField | undefined): boolean => field?.options?.proto3_optional === true;
const jsonName = (name: string): string => name.replace(/_+([^_])/g, (_match, next: string) => next.toUpperCase());
/** protobufjs has Google's own types with their names in camel case. */
const fieldName = (file: FileParts, name: string): string =>
  file.package === 'google.protobuf' ? name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : name;
const mapEntryName = (name: string): string => `${jsonName(`_${name}`)}Entry`;
