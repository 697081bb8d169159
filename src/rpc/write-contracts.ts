/**
 * Writes contracts as code, for a build to store. The functions are those that protobufjs makes when it is first asked for
 * a codec, printed instead of run: bytes and objects are the same by construction.
 */
import { createRequire } from 'node:module';
import type { ProtoEnum, ProtoField, ProtoNode, ProtoRoot, ProtoService, ProtoType } from './load.ts';
import { protobufDirectory } from './protobuf.ts';
import { packageOf } from './written-contracts.ts';

/** A function that protobufjs has written and not run yet: its text is what it prints as. */
type Writer = (type: ProtoType) => { toString(name?: string): string };

type Named = ProtoNode & Partial<ProtoType & ProtoService & ProtoEnum> & { readonly nestedArray?: readonly Named[] };

/** Texts of objects: the services as `WrittenContracts` has them, and by its name each package, a `WrittenPackage`. */
export interface ContractTexts {
  readonly services: string;
  readonly packages: ReadonlyMap<string, string>;
}

/** @param root holds everything */
export function writeContracts(root: ProtoRoot): ContractTexts {
  const require = createRequire(`${protobufDirectory()}/`);
  const converter = require('./src/converter.js') as { fromObject: Writer; toObject: Writer };
  const { generateConstructor } = require('./src/type.js') as { generateConstructor: Writer };
  const functions: Readonly<Record<string, Writer>> = {
    ctor: generateConstructor,
    encode: require('./src/encoder.js'),
    decode: require('./src/decoder.js'),
    fromObject: converter.fromObject,
    toObject: converter.toObject,
  };
  const services: Record<string, object> = {};
  const packages = new Map<string, { readonly enums: Record<string, object>; readonly types: string[] }>();
  const nameOf = ({ fullName }: ProtoNode): string => fullName.replace(/^\./, '');

  const ofPackage = (name: string) => {
    const at = packageOf(name);
    const found = packages.get(at) ?? { enums: {}, types: [] };
    packages.set(at, found);
    return found;
  };

  const take = (node: Named): void => {
    if (node.methodsArray !== undefined) {
      services[nameOf(node)] = Object.fromEntries(
        node.methodsArray.map((method) => {
          method.resolve();
          const { name, resolvedRequestType, resolvedResponseType, requestStream, responseStream } = method;
          const messages = [nameOf(resolvedRequestType), nameOf(resolvedResponseType)];
          return [name, [...messages, requestStream === true, responseStream === true]];
        }),
      );
    } else if (node.fieldsArray !== undefined) ofPackage(nameOf(node)).types.push(typeText(node as ProtoType));
    else if (node.values !== undefined) ofPackage(nameOf(node)).enums[nameOf(node)] = node.values;
    for (const below of node.nestedArray ?? []) take(below);
  };
  const typeText = (type: ProtoType): string => {
    const needs = type.fieldsArray.map((field: ProtoField) => {
      field.resolve();
      return field.resolvedType ? nameOf(field.resolvedType) : 0;
    });
    const made = Object.entries(functions).map(([name, write]) => `${name}:${write(type).toString(name)}`);
    return `${JSON.stringify(nameOf(type))}:[${JSON.stringify(needs)},(types,Reader,Writer,util)=>({${made.join(',')}})]`;
  };
  take(root as unknown as Named);
  return {
    services: JSON.stringify(services),
    packages: new Map(
      [...packages].map(([name, { enums, types }]) => [
        name,
        `{enums:${JSON.stringify(enums)},types:{${types.join(',\n')}}}`,
      ]),
    ),
  };
}
