/** The names in certificates and requests: alternative names (RFC 5280 §4.2.1.6) and the last CN of a Name (§4.1.2.4). */
import { type Cursor, close, derCursor, invalid, open, peek, tag, takeContent, takeElement } from './der.ts';

/** Most alternative names that are read. */
export const mostNames = 1024;

/** Reads a SubjectAltName's value, shared with requests. Throws `der/invalid`. */
export function readGeneralNames(
  value: Cursor,
  where: string,
): { uris: string[]; dnsNames: string[]; otherNames: number[] } {
  const inner = open(value, tag.sequence);
  close(value);
  const uris: string[] = [];
  const dnsNames: string[] = [];
  const otherNames: number[] = [];
  let count = 0;
  if (peek(inner) < 0) throw invalid(where, 'its subject alternative name is empty');
  while (peek(inner) >= 0) {
    if (++count > mostNames) throw invalid(where, `it has more than ${mostNames} alternative names`);
    const kind = peek(inner);
    if (kind !== 0x86 && kind !== 0x82) otherNames.push(kind);
    switch (kind) {
      case 0x86:
        uris.push(ia5(takeContent(inner, 0x86), where));
        break;
      case 0x82:
        dnsNames.push(ia5(takeContent(inner, 0x82), where));
        break;
      case 0x81:
        ia5(takeContent(inner, 0x81), where);
        break;
      case 0x87: {
        const { length } = takeContent(inner, 0x87);
        if (length !== 4 && length !== 16) throw invalid(where, `an IP address has ${length} bytes`);
        break;
      }
      case 0x88:
      case 0xa0:
      case 0xa3:
      case 0xa4:
      case 0xa5:
        takeElement(inner);
        break;
      default:
        throw invalid(where, 'an alternative name is of no known kind');
    }
  }
  return { uris, dnsNames, otherNames };
}

/** Text of an IA5String in which only printable ASCII is let through: a NUL or newline in a name is an attack. */
function ia5(content: Buffer, where: string): string {
  if (content.length === 0 || content.length > 4096)
    throw invalid(where, 'an alternative name is empty or longer than 4096 bytes');
  for (const byte of content)
    if (byte < 0x20 || byte > 0x7e)
      throw invalid(where, 'an alternative name holds something else than printable ASCII');
  return content.toString('latin1');
}

const commonNameId = Buffer.from([0x55, 0x04, 0x03]);

/** Checks the structure of a Name and gives its last CN. Throws `der/invalid`. */
export function commonNameOf(name: Buffer, where: string): string | undefined {
  const whole = derCursor(name, where);
  const parts = open(whole, tag.sequence);
  close(whole);
  let common: string | undefined;
  while (peek(parts) >= 0) {
    const part = open(parts, tag.set);
    if (peek(part) < 0) throw invalid(where, 'a part of a name is empty');
    while (peek(part) >= 0) {
      const attribute = open(part, tag.sequence);
      const type = takeContent(attribute, tag.objectId);
      const kind = peek(attribute);
      const element = takeElement(attribute);
      close(attribute);
      if (type.equals(commonNameId)) common = nameText(kind, element, where);
    }
  }
  return common;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function nameText(kind: number, element: Buffer, where: string): string {
  const content = takeContent(derCursor(element, where), kind);
  switch (kind) {
    case tag.utf8String:
      try {
        return utf8.decode(content);
      } catch {
        throw invalid(where, 'a UTF8String is not UTF-8');
      }
    case tag.printableString:
    case tag.ia5String:
    case tag.teletexString:
      return content.toString('latin1');
    case tag.bmpString:
      return Buffer.from(content.subarray(0, content.length & ~1))
        .swap16()
        .toString('utf16le');
    default:
      throw invalid(where, `a name is written as a string of kind 0x${kind.toString(16)}`);
  }
}
