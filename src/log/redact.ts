/**
 * What may stand in a line of the log. Names that announce a secret are masked; of values only plain ones pass, and texts
 * are searched for keys and tokens. Logged tokens and selectors have been security bugs of this field more than once.
 */
import { Fault } from '../errors.ts';

export type Loggable = string | number | boolean | null | Loggable[] | { [name: string]: Loggable };

const mask = '[hidden]';
const deepest = 5;
const mostItems = 100;
const longestText = 8192;

/** A name as a whole, without case and word marks. `keyId`, `tokenId` and `publicKey` are harmless, hence whole names. */
const secretNames = new Set([
  'authorization',
  'bearer',
  'challenge',
  'challengeresponse',
  'cookie',
  'credential',
  'credentials',
  'd',
  'jointoken',
  'jwt',
  'jwtsvid',
  'key',
  'keys',
  'passphrase',
  'password',
  'payload',
  'pem',
  'privatekey',
  'secret',
  'svid',
  'token',
  'tokens',
  'wit',
  'witsvid',
]);

const secretTexts: readonly (readonly [RegExp, string])[] = [
  // A cut-off key is still most of a key: the end mark is not needed.
  [/-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g, '[private key]'],
  // Compact JWS and JWE: a header `{"` in base64url, then two to four more parts.
  [/\b(?:ey[IJ]|ewo)[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){1,4}/g, '[token]'],
  // DER in base64 begins with M, since every structure is a SEQUENCE; keys of 32 bytes have some 60 characters and more.
  [/(?<![A-Za-z0-9+/_-])M[A-Za-z0-9+/_-]{55,}={0,2}/g, '[base64]'],
  // A container's environment, which selectors of that kind quote.
  [/\b((?:docker|podman):env:[^=\s"',]+=)[^\s"',\]]+/g, `$1${mask}`],
  // Private members of a JWK.
  [/("(?:d|k|p|q|dp|dq|qi)"\s*:\s*")[A-Za-z0-9_-]{16,}/g, `$1${mask}`],
  [/\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}/gi, `$1 ${mask}`],
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s@/]+@/gi, `$1:${mask}@`],
  [
    /(?<![a-z0-9])((?:join[_-]?)?token|password|passphrase|secret)(["']?\s*[=:]\s*["']?)(?=[^\s"',;}]*\d)[^\s"',;}]{6,}/gi,
    `$1$2${mask}`,
  ],
];

/** Something of which is in each of those. Most texts have nothing of it, and need not be searched eight times. */
const suspicious =
  /-----BEGIN|ey[IJ]|ewo|M[A-Za-z0-9+/_-]{55}|:env:|["@]|bearer|basic|token|password|passphrase|secret/i;

/** A copy of a value with nothing in it that may not be logged. Never throws. */
export function clean(value: unknown, depth = 0): Loggable {
  switch (typeof value) {
    case 'string':
      return cleanText(value);
    case 'number':
      return Number.isFinite(value) ? value : String(value);
    case 'boolean':
      return value;
    case 'bigint':
      return value.toString();
    case 'undefined':
      return null;
    case 'object':
      return value === null ? null : cleanObject(value, depth);
    default:
      return `[${typeof value}]`;
  }
}

function cleanText(text: string): string {
  // Cut first: the searches below need not run over a message of megabytes. The second cut keeps lines short.
  let cleaned = text.length > 4 * longestText ? text.slice(0, 4 * longestText) : text;
  if (suspicious.test(cleaned)) cleaned = withoutSecrets(cleaned);
  return cleaned.length > longestText ? `${cleaned.slice(0, longestText)}...` : cleaned;
}

/** A text with what looks like a secret masked. */
export function withoutSecrets(text: string): string {
  let cleaned = text;
  for (const [shape, instead] of secretTexts) cleaned = cleaned.replace(shape, instead);
  return cleaned;
}

function cleanObject(value: object, depth: number): Loggable {
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Error) return cleanError(value, depth);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? '[invalid date]' : value.toISOString();
  if (depth >= deepest) return '[deeper]';
  if (Array.isArray(value)) {
    const items = value.slice(0, mostItems).map((item) => clean(item, depth + 1));
    return value.length > mostItems ? [...items, `[${value.length - mostItems} more]`] : items;
  }
  if (value instanceof Set) return clean([...value], depth);
  const prototype: unknown = Object.getPrototypeOf(value);
  // KeyObject, sockets, maps, requests: only values made to be read may pass.
  if (prototype !== Object.prototype && prototype !== null) return `[${value.constructor?.name ?? 'object'}]`;
  const result: Record<string, Loggable> = {};
  for (const [name, part] of Object.entries(value).slice(0, mostItems)) {
    if (part === undefined || typeof part === 'function') continue;
    const hides =
      secretNames.has(name.toLowerCase().replaceAll(/[^a-z0-9]/g, '')) &&
      typeof part !== 'number' &&
      typeof part !== 'boolean';
    result[name] = hides ? mask : clean(part, depth + 1);
  }
  return result;
}

/** Faults with what the operator needs; anything else is a defect and brings its stack. */
function cleanError(error: Error, depth: number): Loggable {
  const result: Record<string, Loggable> = { message: cleanText(error.message) };
  if (error instanceof Fault) {
    result.code = error.code;
    if (error.detail !== undefined) result.detail = cleanText(error.detail);
    if (error.hint !== undefined) result.hint = cleanText(error.hint);
    if (error.reason !== undefined) result.reason = error.reason;
  } else {
    const code: unknown = 'code' in error ? error.code : undefined;
    if (typeof code === 'string' || typeof code === 'number') result.code = clean(code);
    if (error.stack !== undefined) result.stack = cleanText(error.stack);
  }
  if (error.cause instanceof Error && depth < deepest) result.cause = cleanError(error.cause, depth + 1);
  return result;
}
