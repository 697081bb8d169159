/**
 * The contracts as a build stores them for whoever asks what they say (reflection): a part for each package, so that a
 * program reads those it is asked for and those they refer to. What it speaks it has as code (written-contracts.ts).
 */
import type { ProtoField, ProtoNode, ProtoRoot, ProtoService, ProtoType } from './load.ts';
import { packageOf } from './written-contracts.ts';

interface Part {
  /** Packages whose messages occur in this one's. */
  readonly needs: readonly string[];
  /** Its messages, enums and services, as protobufjs prints them. */
  readonly nested: object;
}

/** What protobufjs prints: a namespace has no fields, values or methods of its own. */
interface Printed {
  readonly nested?: Readonly<Record<string, Printed>>;
  readonly fields?: object;
  readonly values?: object;
  readonly methods?: object;
}

type Named = ProtoNode & Partial<ProtoType & ProtoService> & { readonly nestedArray?: readonly Named[] };

/** The text to store, of a root that holds everything. */
export function printParts(root: ProtoRoot): string {
  const parts: Record<string, Part> = {};
  const take = (name: string, printed: Printed, node: Named): void => {
    const own = Object.entries(printed.nested ?? {}).filter(([, each]) => !isNamespace(each));
    const nodes = node.nestedArray ?? [];
    if (own.length > 0) {
      const within = nodes.filter((each) => own.some(([called]) => called === each.name));
      const needs = new Set(within.flatMap(referredTo).map(({ fullName }) => packageOf(fullName.slice(1))));
      needs.delete(name);
      parts[name] = { needs: [...needs].sort(), nested: Object.fromEntries(own) };
    }
    for (const [called, each] of Object.entries(printed.nested ?? {})) {
      if (!isNamespace(each)) continue;
      const below = nodes.find((child) => child.name === called);
      if (below) take(name === '' ? called : `${name}.${called}`, each, below);
    }
  };
  take('', root.toJSON() as Printed, root as unknown as Named);
  return JSON.stringify(parts);
}

/** Adds packages of a stored text to a root, each once and with those it needs. Throws for one that is not there. */
export function partsOf(text: string, root: ProtoRoot): (name: string) => void {
  const parts = JSON.parse(text) as Readonly<Record<string, Part>>;
  const taken = new Set<string>();
  const take = (name: string): void => {
    if (taken.has(name)) return;
    taken.add(name);
    const part = parts[name];
    if (part === undefined) throw new Error(`the build has no contract of the package ${JSON.stringify(name)}`);
    for (const needed of part.needs) take(needed);
    if (name === '') root.addJSON(part.nested);
    else root.define(name, part.nested);
  };
  return (name) => {
    take(name);
    root.resolveAll();
  };
}

function isNamespace({ fields, values, methods }: Printed): boolean {
  return fields === undefined && values === undefined && methods === undefined;
}

/** The messages and enums that occur in a type or service. */
function referredTo(node: Named): ProtoNode[] {
  const inFields = (node.fieldsArray ?? []).map((field: ProtoField) => {
    field.resolve();
    return field.resolvedType;
  });
  const inMethods = (node.methodsArray ?? []).flatMap((method) => {
    method.resolve();
    return [method.resolvedRequestType, method.resolvedResponseType];
  });
  const found = [...inFields, ...inMethods].filter((each) => each !== null && each !== undefined);
  return [...found, ...(node.nestedArray ?? []).flatMap(referredTo)];
}
