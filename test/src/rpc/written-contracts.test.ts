/** Contracts as a build writes them, beside those that are read from their files: the same bytes, objects and refusals. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  everyContract,
  loadService,
  messageCodec,
  messageOptions,
  type ProtoEnum,
  type ProtoField,
  type ProtoNode,
  type ProtoType,
  packageFiles,
} from '../../../src/rpc/load.ts';
import { protobufDirectory } from '../../../src/rpc/protobuf.ts';
import { writeContracts } from '../../../src/rpc/write-contracts.ts';
import {
  packageOf,
  type WrittenContracts,
  type WrittenPackage,
  writtenCodecs,
} from '../../../src/rpc/written-contracts.ts';

const contracts = everyContract();
const texts = writeContracts(contracts);
const library = createRequire(import.meta.url)(protobufDirectory());
const read = (text: string): unknown => new Function(`return ${text}`)();
const packages = new Map([...texts.packages].map(([name, text]) => [name, read(text) as WrittenPackage]));
const written: WrittenContracts = {
  services: read(texts.services) as WrittenContracts['services'],
  package: (name) => packages.get(name) ?? assert.fail(`no package ${name}`),
  library: () => library,
};
const codecOf = writtenCodecs(written, messageOptions);

type Named = ProtoNode & Partial<ProtoType> & { readonly nestedArray?: readonly Named[] };
const typesBelow = (node: Named): ProtoType[] => [
  ...(node.fieldsArray === undefined ? [] : [node as ProtoType]),
  ...(node.nestedArray ?? []).flatMap(typesBelow),
];
/** Those within others are seen in them. */
const ours = typesBelow(contracts as unknown as Named).filter(
  ({ fullName }) => packageFiles[fullName.slice(1, Math.max(fullName.lastIndexOf('.'), 1))] !== undefined,
);

const scalars: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  string: fc.string({ unit: 'binary' }),
  bool: fc.boolean(),
  bytes: fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
  double: fc.double(),
  float: fc.float(),
  int32: fc.integer(),
  uint32: fc.nat(),
  int64: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String),
  uint64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String),
};

/** Messages as handlers give them, three deep. */
function messages(type: ProtoType, depth: number): fc.Arbitrary<object> {
  const fields = type.fieldsArray.flatMap((field): [string, fc.Arbitrary<unknown>][] => {
    const one = valuesOf(field, depth);
    if (one === undefined) return [];
    if (field.map) return [[field.name, fc.dictionary(fc.string(), one, { maxKeys: 2 })]];
    return [[field.name, field.repeated ? fc.array(one, { maxLength: 2 }) : one]];
  });
  return fc.record(Object.fromEntries(fields), { requiredKeys: [] });
}

function valuesOf(field: ProtoField, depth: number): fc.Arbitrary<unknown> | undefined {
  field.resolve();
  const { resolvedType } = field;
  if (!resolvedType) return scalars[field.type]!;
  const { values } = resolvedType as ProtoEnum;
  // Names, numbers, and a number of a later version.
  if (values) return fc.constantFrom(...Object.keys(values), ...Object.values(values), 999);
  return depth > 0 ? messages(resolvedType as ProtoType, depth - 1) : undefined;
}

const outcome = (work: () => unknown): unknown => {
  try {
    return { value: work() };
  } catch (error) {
    return { thrown: String(error) };
  }
};

test('every service has the same methods', () => {
  assert.ok(Object.keys(written.services).length >= 20);
  for (const [name, methods] of Object.entries(written.services)) {
    const expected = Object.entries(loadService(name)).map(([method, it]) => [
      method,
      it.requestStream,
      it.responseStream,
    ]);
    assert.deepEqual(
      Object.entries(methods).map(([method, [, , requests, responses]]) => [method, requests, responses]),
      expected,
    );
    for (const [method, [request, response]] of Object.entries(methods)) {
      for (const each of [request, response])
        assert.ok(each in written.package(packageOf(each)).types, `${each} of ${name}.${method}`);
    }
  }
});

test('every message is the same bytes, and the same object again', () => {
  assert.ok(ours.length > 200, String(ours.length));
  for (const type of ours) {
    const name = type.fullName.slice(1);
    const [read, other] = [messageCodec(name), codecOf(name)];
    fc.assert(
      fc.property(messages(type, 3), (message) => {
        const bytes = read.encode(message);
        assert.deepEqual(other.encode(message), bytes, name);
        assert.deepEqual(other.decode(bytes), read.decode(bytes), name);
      }),
      { numRuns: 12 },
    );
  }
});

test('what is no message is refused alike, with the same words', () => {
  for (const type of ours) {
    const name = type.fullName.slice(1);
    const [read, other] = [messageCodec(name), codecOf(name)];
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 24 }), (bytes) => {
        assert.deepEqual(
          outcome(() => other.decode(bytes)),
          outcome(() => read.decode(bytes)),
          name,
        );
      }),
      { numRuns: 25 },
    );
    for (const wrong of [5, Object.fromEntries(type.fieldsArray.map((field) => [field.name, 5]))]) {
      assert.deepEqual(
        outcome(() => other.encode(wrong)),
        outcome(() => read.encode(wrong)),
        name,
      );
    }
  }
});

test('a message within itself is written too, and no deeper than the library goes', () => {
  const [read, other] = [messageCodec('ValidateJWTSVIDResponse'), codecOf('ValidateJWTSVIDResponse')];
  const nested = (depth: number): object =>
    depth === 0 ? { stringValue: 'x' } : { structValue: { fields: { a: nested(depth - 1) } } };
  for (const depth of [3, 40]) {
    const message = { claims: { fields: { a: nested(depth) } } };
    assert.deepEqual(
      outcome(() => other.decode(other.encode(message))),
      outcome(() => read.decode(read.encode(message))),
      String(depth),
    );
  }
});

test('every package is written, and a name that is in none is refused', () => {
  const services = Object.keys(written.services).map(packageOf);
  for (const name of Object.keys(packageFiles)) {
    assert.ok(packages.has(name) || services.includes(name), name);
  }
  assert.throws(
    () => codecOf('spire.api.types.Nothing').encode({}),
    /no contract has a message called "spire.api.types.Nothing"/,
  );
});
