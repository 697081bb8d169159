/**
 * The sources as the laws read them: texts with comments, and where asked strings, blanked out, so that a word in a
 * comment is no offence. Lines and columns stay. A full parser would be exact; this needs none and starts at once.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the checkout, with a slash at its end. */
export const root = fileURLToPath(new URL('../../', import.meta.url));

export interface Source {
  /** From the root, with `/`: `src/spiffe/id.ts`. */
  readonly path: string;
  readonly text: string;
  /** Without comments. */
  readonly code: string;
  /** Without comments and the contents of strings and templates. */
  readonly bare: string;
}

/** One breach of a law. */
export interface Offence {
  readonly path: string;
  readonly line: number;
  readonly says: string;
}

export interface Law {
  readonly name: string;
  check(sources: readonly Source[]): readonly Offence[];
}

/** Where our TypeScript lies. */
export const sourceFolders = ['src', 'server', 'agent', 'cli', 'sdk', 'test', 'tools', 'bench', 'examples'];
/** The programs themselves, which the laws bind; the rest serves them. */
export const programFolders = ['src', 'server', 'agent', 'cli', 'sdk'];

/** Reads all sources, ordered by path. */
export function readSources(): Source[] {
  return sourceFolders
    .flatMap((folder) => pathsBelow(folder))
    .filter((path) => /\.(ts|js|mjs)$/.test(path))
    .sort()
    .map((path) => sourceOf(path, readFileSync(join(root, path), 'utf8')));
}

/** A text as a source; tests of the laws make theirs with it. */
export function sourceOf(path: string, text: string): Source {
  return { path, text, code: blank(text, false), bare: blank(text, true) };
}

export function isProgram(source: Source): boolean {
  return programFolders.some((folder) => source.path.startsWith(`${folder}/`));
}

/** Every match of a global expression with its line. */
export function* findAll(text: string, shape: RegExp): Generator<{ line: number; match: RegExpExecArray }> {
  for (const match of text.matchAll(shape)) {
    yield { line: text.slice(0, match.index).split('\n').length, match: match as RegExpExecArray };
  }
}

/** Prints an offence as editors and terminals understand it. */
export function printOffence({ path, line, says }: Offence): string {
  return `${path}:${line}: ${says}`;
}

/** Files below a folder that may be missing. Installed and made things are left out. */
function pathsBelow(folder: string): string[] {
  let entries: ReturnType<typeof list>;
  try {
    entries = list(join(root, folder));
  } catch {
    return [];
  }
  return entries.flatMap((entry) => {
    if (entry.name === 'node_modules' || entry.name.startsWith('.')) return [];
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory() ? pathsBelow(path) : [path];
  });
}

function list(path: string) {
  return readdirSync(path, { withFileTypes: true });
}

/** Characters after which a slash begins a regular expression, not a division. */
const beforeRegExp = /(?:^|[(,=:[!&|?{};+\-*%~^<>\n]|\b(?:return|typeof|case|of|in|throw|await|yield))\s*$/;

/** Blanks comments, and with `strings` also what stands between quotes. */
function blank(text: string, strings: boolean): string {
  let out = '';
  let at = 0;
  /** Depths of braces at which a template goes on after `${`. */
  const templates: number[] = [];
  let depth = 0;
  const spaces = (part: string): string => part.replaceAll(/[^\n]/g, ' ');
  const quoted = (end: number): void => {
    const part = text.slice(at, end);
    out += strings && part.length > 2 ? part[0] + spaces(part.slice(1, -1)) + part.at(-1) : part;
    at = end;
  };
  const template = (): void => {
    const start = at;
    let end = at + 1;
    while (end < text.length && text[end] !== '`') {
      if (text[end] === '\\') end += 1;
      else if (text[end] === '$' && text[end + 1] === '{') {
        end += 1;
        templates.push(depth);
        depth += 1;
        break;
      }
      end += 1;
    }
    const part = text.slice(start, end + 1);
    out += strings ? part[0] + spaces(part.slice(1, -1)) + (part.length > 1 ? part.at(-1) : '') : part;
    at = end + 1;
  };
  while (at < text.length) {
    const char = text[at]!;
    const two = text.slice(at, at + 2);
    if (two === '//' || two === '/*' || (at === 0 && two === '#!')) {
      const found = two === '/*' ? text.indexOf('*/', at + 2) + 2 : text.indexOf('\n', at);
      const end = found < at + 1 ? text.length : found;
      out += spaces(text.slice(at, end));
      at = end;
    } else if (char === "'" || char === '"') {
      let end = at + 1;
      while (end < text.length && text[end] !== char && text[end] !== '\n') end += text[end] === '\\' ? 2 : 1;
      quoted(end + 1);
    } else if (char === '`') {
      template();
    } else if (char === '/' && beforeRegExp.test(out.slice(-40))) {
      let end = at + 1;
      let inClass = false;
      while (end < text.length && text[end] !== '\n' && (inClass || text[end] !== '/')) {
        if (text[end] === '\\') end += 1;
        else if (text[end] === '[') inClass = true;
        else if (text[end] === ']') inClass = false;
        end += 1;
      }
      quoted(end + 1);
    } else {
      if (char === '{') depth += 1;
      if (char === '}') {
        depth -= 1;
        if (templates.at(-1) === depth) {
          templates.pop();
          template();
          continue;
        }
      }
      out += char;
      at += 1;
    }
  }
  return out;
}
