/**
 * JSON from others, read strictly: a member that is there twice is refused, since two readers could each believe another
 * one (TB-15), and integers beyond 2^53 come as bigint instead of being rounded (TB-5).
 */
import { Fault, quote } from '../errors.ts';

export type Json = null | boolean | number | bigint | string | Json[] | { [name: string]: Json };

const structure = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g;
const deepest = 64;

/**
 * Reads a JSON text. Throws `input/invalid`.
 * @param what names it in messages
 * @param integers `exact` gives integers beyond 2^53 as bigint; `number` rounds them, for what is handed on as JSON
 */
export function parseJson(text: string, what: string, integers: 'exact' | 'number' = 'exact'): Json {
  refuseDeepAndDouble(text, what);
  try {
    return JSON.parse(text, integers === 'exact' ? exact : undefined) as Json;
  } catch (error) {
    throw new Fault('input/invalid', `${what} is not JSON`, { cause: error });
  }
}

/** As `parseJson`, for a text that must be an object. */
export function parseJsonObject(
  text: string,
  what: string,
  integers: 'exact' | 'number' = 'exact',
): { [name: string]: Json } {
  const value = parseJson(text, what, integers);
  if (isJsonObject(value)) return value;
  throw new Fault('input/invalid', `${what} is not a JSON object`);
}

/** Whether a value is an object, not an array and not null. */
export function isJsonObject(value: unknown): value is { [name: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function exact(_name: string, value: unknown, context?: { source?: string }): unknown {
  if (
    typeof value === 'number' &&
    !Number.isSafeInteger(value) &&
    context?.source !== undefined &&
    /^-?\d+$/.test(context.source)
  ) {
    return BigInt(context.source);
  }
  return value;
}

/** Walks the punctuation once. Where the text is not JSON this may see anything, but then `JSON.parse` refuses it. */
function refuseDeepAndDouble(text: string, what: string): void {
  const stack: (Set<string> | undefined)[] = [];
  let last = '';
  for (const [token] of text.matchAll(structure)) {
    if (token === '{') stack.push(new Set());
    else if (token === '[') stack.push(undefined);
    else if (token === '}' || token === ']') stack.pop();
    else if (token === ':') {
      const names = stack.at(-1);
      const name = plain(last);
      if (names?.has(name)) throw new Fault('input/invalid', `${what} has member ${quote(name)} twice`);
      names?.add(name);
    }
    if (stack.length > deepest) throw new Fault('input/invalid', `${what} nests deeper than ${deepest}`);
    last = token;
  }
}

/** The text a string token stands for, so that an escape cannot hide a double. */
function plain(token: string): string {
  try {
    return String(JSON.parse(token));
  } catch {
    return token;
  }
}
