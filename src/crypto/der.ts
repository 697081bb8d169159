/**
 * DER, read strictly and written plainly (X.690). The reader is what stands in front of hostile bytes: it refuses
 * indefinite and non-minimal lengths, multi-byte tags, trailing bytes, deep nesting and every non-canonical value, and
 * throws nothing but a `der/invalid` Fault. It never copies; what it gives are views of the bytes it was given.
 */
import { Fault } from '../errors.ts';

export const tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  objectId: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

const deepest = 24;

/** A place in some DER. The functions below move `at` forward. */
export interface Cursor {
  readonly bytes: Buffer;
  at: number;
  readonly end: number;
  readonly depth: number;
  /** What is being read, for messages. */
  readonly what: string;
}

/**
 * Begins to read.
 * @param what names the object in messages, such as "certificate"
 * @param most the largest size in bytes; checked before anything is read
 */
export function derCursor(bytes: Buffer, what: string, most = 65_536): Cursor {
  if (bytes.length > most) throw invalid(what, `it is ${bytes.length} bytes long; at most ${most} are read`);
  return { bytes, at: 0, end: bytes.length, depth: 0, what };
}

/** The Fault every reader of DER throws. */
export function invalid(what: string, why: string): Fault {
  return new Fault('der/invalid', `${what} is malformed: ${why}`);
}

/** The tag of the next element, or -1 at the end. */
export function peek(cursor: Cursor): number {
  return cursor.at < cursor.end ? cursor.bytes[cursor.at]! : -1;
}

/** Reads the next header, checks its tag and that the content fits; gives where the content begins and ends. */
function header(cursor: Cursor, expected: number): { body: number; end: number } {
  const { bytes, at, end, what } = cursor;
  if (at >= end)
    throw invalid(what, expected < 0 ? 'an element is missing' : `expected tag ${hex(expected)}, found the end`);
  const found = bytes[at]!;
  if (expected >= 0 && found !== expected) throw invalid(what, `expected tag ${hex(expected)}, found ${hex(found)}`);
  if ((found & 0x1f) === 0x1f) throw invalid(what, 'a tag has several bytes');
  if (found === 0) throw invalid(what, 'an end-of-contents marker is not DER');
  if (at + 1 >= end) throw invalid(what, 'an element is cut off');
  let length = bytes[at + 1]!;
  let body = at + 2;
  if (length >= 0x80) {
    const count = length & 0x7f;
    if (count === 0) throw invalid(what, 'an indefinite length is not DER');
    if (count > 4) throw invalid(what, 'a length has more than four bytes');
    if (body + count > end) throw invalid(what, 'a length is cut off');
    length = 0;
    for (let index = 0; index < count; index++) length = length * 256 + bytes[body + index]!;
    if (length < 0x80 || length < 256 ** (count - 1)) throw invalid(what, 'a length is not minimal');
    body += count;
  }
  if (length > end - body) throw invalid(what, `an element claims ${length} bytes where ${end - body} are left`);
  return { body, end: body + length };
}

/** Takes the next element whole, header included. Without `expected` any tag will do. */
export function takeElement(cursor: Cursor, expected = -1): Buffer {
  const { end } = header(cursor, expected);
  const element = cursor.bytes.subarray(cursor.at, end);
  cursor.at = end;
  return element;
}

/** Takes the content of the next element, which must have tag `expected`. */
export function takeContent(cursor: Cursor, expected: number): Buffer {
  const { body, end } = header(cursor, expected);
  cursor.at = end;
  return cursor.bytes.subarray(body, end);
}

/** Steps over the next element, whose inside is read by the cursor returned. */
export function open(cursor: Cursor, expected: number): Cursor {
  const { body, end } = header(cursor, expected);
  cursor.at = end;
  if (cursor.depth >= deepest) throw invalid(cursor.what, `it nests deeper than ${deepest}`);
  return { bytes: cursor.bytes, at: body, end, depth: cursor.depth + 1, what: cursor.what };
}

/** Reads the inside of some bytes of their own (an OCTET STRING that holds DER), one level deeper. */
export function openInside(cursor: Cursor, content: Buffer): Cursor {
  if (cursor.depth >= deepest) throw invalid(cursor.what, `it nests deeper than ${deepest}`);
  return { bytes: content, at: 0, end: content.length, depth: cursor.depth + 1, what: cursor.what };
}

/** Refuses anything left over. */
export function close(cursor: Cursor): void {
  if (cursor.at !== cursor.end) throw invalid(cursor.what, `${cursor.end - cursor.at} bytes are left over`);
}

/** Takes an INTEGER's content bytes: minimal two's complement. */
export function takeIntegerBytes(cursor: Cursor): Buffer {
  const content = takeContent(cursor, tag.integer);
  const first = content[0];
  if (first === undefined) throw invalid(cursor.what, 'an INTEGER is empty');
  const second = content[1];
  if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))) {
    throw invalid(cursor.what, 'an INTEGER is not minimal');
  }
  return content;
}

/** Takes a non-negative INTEGER of at most `most` significant bytes, as those bytes without a sign byte. */
export function takeUnsigned(cursor: Cursor, most: number): Buffer {
  const content = takeIntegerBytes(cursor);
  if (content[0]! >= 0x80) throw invalid(cursor.what, 'an INTEGER is negative');
  const digits = content[0] === 0 && content.length > 1 ? content.subarray(1) : content;
  if (digits.length > most) throw invalid(cursor.what, `an INTEGER has more than ${most} bytes`);
  return digits;
}

/** Takes a small non-negative INTEGER as a number. */
export function takeSmall(cursor: Cursor): number {
  return takeUnsigned(cursor, 4).reduce((value, byte) => value * 256 + byte, 0);
}

/** Takes a BOOLEAN: 00 or FF. */
export function takeBoolean(cursor: Cursor): boolean {
  const content = takeContent(cursor, tag.boolean);
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff))
    throw invalid(cursor.what, 'a BOOLEAN is not DER');
  return content[0] === 0xff;
}

/** Takes a BIT STRING of whole bytes. */
export function takeBits(cursor: Cursor): Buffer {
  const content = takeContent(cursor, tag.bitString);
  if (content[0] !== 0) throw invalid(cursor.what, 'a BIT STRING does not consist of whole bytes');
  return content.subarray(1);
}

/** Takes a BIT STRING of named bits as a number; bit n of the standard is `1 << n`. At most 16 bits. */
export function takeNamedBits(cursor: Cursor): number {
  const content = takeContent(cursor, tag.bitString);
  const unused = content[0];
  if (unused === undefined || unused > 7 || content.length > 3 || (content.length === 1 && unused !== 0)) {
    throw invalid(cursor.what, 'a BIT STRING of named bits is malformed');
  }
  let flags = 0;
  for (let bit = 0; bit < (content.length - 1) * 8; bit++) {
    if ((content[1 + (bit >> 3)]! & (0x80 >> (bit & 7))) !== 0) flags |= 1 << bit;
  }
  // X.690 11.2.2: no trailing zero bits, and the unused ones are zero.
  const used = (content.length - 1) * 8 - unused;
  if (flags >= 2 ** used || (used > 0 && (flags & (1 << (used - 1))) === 0)) {
    throw invalid(cursor.what, 'a BIT STRING of named bits is not minimal');
  }
  return flags;
}

/** Identifiers that were read before, by their bytes: nearly all there ever are. */
const objectIdsOfLate = new Map<string, string>();

/** Takes an OBJECT IDENTIFIER in dotted form. */
export function takeObjectId(cursor: Cursor): string {
  const content = takeContent(cursor, tag.objectId);
  if (content.length === 0 || content.length > 64)
    throw invalid(cursor.what, 'an OBJECT IDENTIFIER has no sensible length');
  const bytes = content.toString('latin1');
  let text = objectIdsOfLate.get(bytes);
  if (text === undefined) {
    text = readObjectId(cursor.what, content);
    if (objectIdsOfLate.size === 64) objectIdsOfLate.clear();
    objectIdsOfLate.set(bytes, text);
  }
  return text;
}

function readObjectId(what: string, content: Buffer): string {
  if (content[content.length - 1]! >= 0x80) throw invalid(what, 'an OBJECT IDENTIFIER is cut off');
  let text = '';
  let arc = 0;
  let fresh = true;
  for (const byte of content) {
    if (fresh && byte === 0x80) throw invalid(what, 'an OBJECT IDENTIFIER is not minimal');
    arc = arc * 128 + (byte & 0x7f);
    if (arc > Number.MAX_SAFE_INTEGER / 256) throw invalid(what, 'an OBJECT IDENTIFIER has an enormous arc');
    fresh = byte < 0x80;
    if (!fresh) continue;
    if (text === '') text = arc < 40 ? `0.${arc}` : arc < 80 ? `1.${arc - 40}` : `2.${arc - 80}`;
    else text += `.${arc}`;
    arc = 0;
  }
  return text;
}

/** Takes a UTCTime or GeneralizedTime in the one form RFC 5280 §4.1.2.5 allows; milliseconds since the epoch. */
export function takeTime(cursor: Cursor): number {
  const general = peek(cursor) === tag.generalizedTime;
  const text = takeContent(cursor, general ? tag.generalizedTime : tag.utcTime).toString('latin1');
  if (!(general ? /^\d{14}Z$/ : /^\d{12}Z$/).test(text))
    throw invalid(cursor.what, `a time is not of the form ${general ? 'YYYY' : 'YY'}MMDDhhmmssZ`);
  const short = Number(text.slice(0, 2));
  const year = general ? Number(text.slice(0, 4)) : short < 50 ? 2000 + short : 1900 + short;
  const rest = text.slice(general ? 4 : 2);
  const part = (index: number): number => Number(rest.slice(index * 2, index * 2 + 2));
  const [month, day, hour, minute, second] = [part(0), part(1), part(2), part(3), part(4)] as const;
  const at = new Date(0);
  at.setUTCFullYear(year, month - 1, day);
  at.setUTCHours(hour, minute, second);
  const wrapped = at.getUTCMonth() !== month - 1 || at.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59;
  if (wrapped) throw invalid(cursor.what, 'a time does not exist');
  return at.getTime();
}

/** Writes an element from its parts. */
export function tlv(tagByte: number, ...parts: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const part of parts) length += part.length;
  const start = headerLength(length);
  const element = Buffer.allocUnsafe(start + length);
  writeHeader(element, 0, tagByte, length);
  let at = start;
  for (const part of parts) {
    element.set(part, at);
    at += part.length;
  }
  return element;
}

/** Bytes of the header of an element with `length` bytes of content. */
export function headerLength(length: number): number {
  return length < 0x80 ? 2 : length < 0x100 ? 3 : length < 0x10000 ? 4 : length < 0x1000000 ? 5 : 6;
}

/** Writes a header at `at` and gives where the content begins. */
export function writeHeader(into: Buffer, at: number, tagByte: number, length: number): number {
  into[at] = tagByte;
  if (length < 0x80) {
    into[at + 1] = length;
    return at + 2;
  }
  const count = headerLength(length) - 2;
  into[at + 1] = 0x80 | count;
  for (let index = count, rest = length; index > 0; index--, rest = Math.floor(rest / 256))
    into[at + 1 + index] = rest & 0xff;
  return at + 2 + count;
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => tlv(tag.sequence, ...parts);

/** SET OF: the elements are put into the order DER demands (X.690 11.6). */
export const set = (...parts: readonly Uint8Array[]): Buffer => tlv(tag.set, ...[...parts].sort(Buffer.compare));

/** A non-negative INTEGER from its big-endian bytes, or from a number or bigint. */
export function integer(value: Uint8Array | number | bigint): Buffer {
  let digits: Uint8Array;
  if (typeof value === 'object') digits = value;
  else {
    if (value < 0) throw new RangeError('integer: negative values are not written');
    const text = value.toString(16);
    digits = Buffer.from(text.length % 2 === 0 ? text : `0${text}`, 'hex');
  }
  let from = 0;
  while (from < digits.length - 1 && digits[from] === 0) from++;
  digits = digits.subarray(from);
  if (digits.length === 0) return Buffer.of(tag.integer, 1, 0);
  return digits[0]! >= 0x80 ? tlv(tag.integer, Buffer.of(0), digits) : tlv(tag.integer, digits);
}

export const boolean = (value: boolean): Buffer => Buffer.of(tag.boolean, 1, value ? 0xff : 0);
export const nothing = (): Buffer => Buffer.of(tag.null, 0);

/** An OBJECT IDENTIFIER from dotted form. */
export function objectId(dotted: string): Buffer {
  const arcs = dotted.split('.').map(Number);
  if (arcs.length < 2 || !/^[0-2](\.(0|[1-9]\d*))+$/.test(dotted))
    throw new RangeError(`objectId: ${dotted} is not one`);
  const bytes: number[] = [];
  for (const arc of [arcs[0]! * 40 + arcs[1]!, ...arcs.slice(2)]) {
    const digits = [arc % 128];
    for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) digits.unshift((rest % 128) | 0x80);
    bytes.push(...digits);
  }
  return tlv(tag.objectId, Buffer.from(bytes));
}

/** A BIT STRING of whole bytes. */
export const bitString = (bytes: Uint8Array): Buffer => tlv(tag.bitString, Buffer.of(0), bytes);

/** A BIT STRING of named bits; bit n of the standard is `1 << n`. */
export function namedBits(flags: number): Buffer {
  if (flags === 0) return Buffer.of(tag.bitString, 1, 0);
  const highest = 31 - Math.clz32(flags);
  const bytes = Buffer.alloc((highest >> 3) + 1);
  for (let bit = 0; bit <= highest; bit++) if ((flags & (1 << bit)) !== 0) bytes[bit >> 3]! |= 0x80 >> (bit & 7);
  return tlv(tag.bitString, Buffer.of(7 - (highest & 7)), bytes);
}

export const octetString = (...parts: readonly Uint8Array[]): Buffer => tlv(tag.octetString, ...parts);

/** A context-specific element: constructed unless `primitive`. */
export function context(number: number, parts: readonly Uint8Array[], primitive = false): Buffer {
  return tlv((primitive ? 0x80 : 0xa0) | number, ...parts);
}

/** The times written last: certificates that are issued in one second have the same two. */
const timesOfLate = new Map<number, Buffer>();

/** A time as RFC 5280 §4.1.2.5 asks: UTCTime through 2049, GeneralizedTime after. @param ms rounded down to seconds */
export function time(ms: number): Buffer {
  const second = Math.floor(ms / 1000);
  let element = timesOfLate.get(second);
  if (element === undefined) {
    element = writeTime(ms);
    if (timesOfLate.size === 8) timesOfLate.clear();
    timesOfLate.set(second, element);
  }
  return element;
}

function writeTime(ms: number): Buffer {
  const iso = new Date(ms).toISOString();
  if (!/^\d{4}-/.test(iso)) throw new RangeError(`time: year ${iso} is out of range`);
  const digits = `${iso.slice(0, 4)}${iso.slice(5, 7)}${iso.slice(8, 10)}${iso.slice(11, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
  const short = iso >= '1950' && iso < '2050';
  return tlv(short ? tag.utcTime : tag.generalizedTime, Buffer.from(short ? digits.slice(2) : digits, 'latin1'));
}

/** A PrintableString where the text allows it, else a UTF8String, as other issuers of SVIDs write names. */
export function directoryString(text: string): Buffer {
  const printable = /^[A-Za-z0-9 '()+,\-./:=?]*$/.test(text);
  return tlv(printable ? tag.printableString : tag.utf8String, Buffer.from(text, 'utf8'));
}

const hex = (value: number): string => `0x${value.toString(16).padStart(2, '0')}`;
