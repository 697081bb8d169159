/**
 * A configuration file as a tree of texts with their places. YAML 1.2 and therefore JSON. Scalars stay the text that was
 * written (`0770` is not a number here); duplicate keys, several documents and broken syntax are refused with line and column.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type ParsedNode, parseDocument } from 'yaml';
import { quote } from '../errors.ts';

/** A place as editors and terminals understand it: `server.yaml:5:3`. */
export type Place = string;

export type FileNode =
  | { readonly is: 'text'; readonly at: Place; readonly text: string }
  | { readonly is: 'null'; readonly at: Place }
  | { readonly is: 'list'; readonly at: Place; readonly items: readonly FileNode[] }
  | { readonly is: 'map'; readonly at: Place; readonly keys: ReadonlyMap<string, { at: Place; node: FileNode }> };

export interface ConfigTree {
  /** Undefined when the file is empty or broken. */
  readonly root: FileNode | undefined;
  /** Faults of syntax, each with its place. */
  readonly problems: readonly string[];
}

/** Deeper and larger than any table; stops aliases that contain themselves or multiply. */
const deepest = 12;
const mostNodes = 20_000;

/** Reads a file's text. Never throws: what is wrong is listed. */
export function parseConfigFile(path: string, source: string): ConfigTree {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, uniqueKeys: true, prettyErrors: false, version: '1.2' });
  const problems: string[] = [];
  const place = (offset: number | undefined): Place => {
    const { line, col } = lines.linePos(offset ?? 0);
    return `${path}:${Math.max(line, 1)}:${Math.max(col, 1)}`;
  };
  for (const error of [...document.errors, ...document.warnings]) {
    problems.push(`${place(error.pos[0])}: ${error.message.split('\n')[0]}`);
  }

  let nodes = 0;
  const convert = (node: ParsedNode | null, at: Place, depth: number): FileNode => {
    nodes += 1;
    if (depth > deepest || nodes > mostNodes) {
      if (nodes <= mostNodes) problems.push(`${at}: is nested deeper than ${deepest} levels`);
      else if (nodes === mostNodes + 1) problems.push(`${at}: holds more than ${mostNodes} values`);
      return { is: 'null', at };
    }
    if (node === null) return { is: 'null', at };
    if (isAlias(node)) return convert((node.resolve(document) ?? null) as ParsedNode | null, at, depth + 1);
    if (isScalar(node)) {
      if (node.value === null && (node.source === '' || node.source === 'null' || node.source === '~')) {
        return { is: 'null', at };
      }
      const plain = typeof node.value === 'string' ? node.value : (node.source ?? String(node.value));
      return { is: 'text', at, text: plain };
    }
    if (isSeq(node)) {
      const items = (node.items as ParsedNode[]).slice(0, 1001);
      return { is: 'list', at, items: items.map((item) => convert(item, place(item?.range?.[0]), depth + 1)) };
    }
    const keys = new Map<string, { at: Place; node: FileNode }>();
    if (isMap(node)) {
      for (const { key, value } of node.items as { key: ParsedNode; value: ParsedNode | null }[]) {
        const keyAt = place(key.range?.[0]);
        if (!isScalar(key)) {
          problems.push(`${keyAt}: a key must be a plain word`);
          continue;
        }
        const name = typeof key.value === 'string' ? key.value : (key.source ?? String(key.value));
        const valueAt = value === null ? keyAt : place(value.range?.[0]);
        keys.set(name, { at: keyAt, node: convert(value, valueAt, depth + 1) });
      }
    }
    return { is: 'map', at, keys };
  };

  if (document.errors.length > 0) return { root: undefined, problems };
  const root = document.contents as ParsedNode | null;
  if (root === null || (isScalar(root) && root.value === null)) return { root: undefined, problems };
  const tree = convert(root, place(root.range?.[0]), 0);
  if (tree.is !== 'map') {
    problems.push(`${tree.at}: ${tree.is === 'text' ? quote(tree.text) : 'a list'} is not a map of keys and values`);
    return { root: undefined, problems };
  }
  return { root: tree, problems };
}
