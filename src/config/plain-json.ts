/**
 * A configuration file that is plain JSON, read without the parser of YAML, which takes a start 8 ms. Only a whole map of
 * plain values is read here; anything odd, wrong, twice or very large is left to that parser and its words (file.ts).
 */
import type { FileNode } from './file.ts';

/** A map, or undefined where the parser has to look. The same tree that the parser makes, places included. */
export function readPlainJson(path: string, source: string): FileNode | undefined {
  try {
    const reader = new Reader(path, source);
    const root = reader.value(0);
    return root.is === 'map' && reader.isAtEnd() ? root : undefined;
  } catch (error) {
    if (error === notPlain) return undefined;
    throw error;
  }
}

/** Less deep, long and many than what the parser takes, so that its limits need not be known here. */
const deepest = 10;
const longestKey = 100;
const mostNodes = 1_000;

const notPlain = new Error('not plain JSON');

/** What may stand between tokens, then the token. A text may hold no control characters. */
const token =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones that JSON refuses.
  /(?: |\t|\r?\n)*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f\u007f-\u{10ffff}]|\\["\\/bfnrt])*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?|true|false|null))/uy;

class Reader {
  readonly #path: string;
  readonly #source: string;
  #end = 0;
  /** Of the token that was read last. */
  #start = 0;
  #line = 1;
  /** Where that line begins. */
  #lineStart = 0;
  #counted = 0;
  #nodes = 0;

  constructor(path: string, source: string) {
    this.#path = path;
    this.#source = source;
  }

  value(depth: number): FileNode {
    const [, mark, text, word] = this.#next();
    const at = this.#place();
    if (++this.#nodes > mostNodes || depth > deepest) throw notPlain;
    if (text !== undefined) return { is: 'text', at, text: JSON.parse(text) };
    if (word !== undefined) return word === 'null' ? { is: 'null', at } : { is: 'text', at, text: word };
    if (mark === '[') {
      const items: FileNode[] = [];
      if (this.#takes(']')) return { is: 'list', at, items };
      do items.push(this.value(depth + 1));
      while (this.#goesOn(']'));
      return { is: 'list', at, items };
    }
    if (mark !== '{') throw notPlain;
    const keys = new Map<string, { at: string; node: FileNode }>();
    if (this.#takes('}')) return { is: 'map', at, keys };
    do {
      const [, , quoted] = this.#next();
      if (quoted === undefined || quoted.length > longestKey) throw notPlain;
      const keyAt = this.#place();
      const key: string = JSON.parse(quoted);
      if (keys.has(key) || this.#source[this.#end] !== ':') throw notPlain;
      this.#end += 1;
      keys.set(key, { at: keyAt, node: this.value(depth + 1) });
    } while (this.#goesOn('}'));
    return { is: 'map', at, keys };
  }

  isAtEnd(): boolean {
    return /^(?: |\t|\r?\n)*$/.test(this.#source.slice(this.#end));
  }

  #next(): RegExpExecArray {
    token.lastIndex = this.#end;
    const found = token.exec(this.#source);
    if (found === null) throw notPlain;
    this.#end = token.lastIndex;
    this.#start = this.#end - (found[1] ?? found[2] ?? found[3] ?? '').length;
    return found;
  }

  /** Takes the mark, if it is what comes next. */
  #takes(mark: string): boolean {
    const before = this.#end;
    token.lastIndex = before;
    if (token.exec(this.#source)?.[1] !== mark) return false;
    this.#end = token.lastIndex;
    return true;
  }

  /** Whether another one follows in a list or map that ends with `mark`. */
  #goesOn(mark: string): boolean {
    const [, found] = this.#next();
    if (found !== ',' && found !== mark) throw notPlain;
    return found === ',';
  }

  #place(): string {
    for (; this.#counted < this.#start; this.#counted++) {
      if (this.#source[this.#counted] !== '\n') continue;
      this.#line += 1;
      this.#lineStart = this.#counted + 1;
    }
    return `${this.#path}:${this.#line}:${this.#start - this.#lineStart + 1}`;
  }
}
