/** Subjects of certificates: DER Names put together from the parts of another one. */
import { type NameAttribute, name } from '../../src/crypto/certificate-writer.ts';
import {
  close,
  derCursor,
  open,
  peek,
  sequence,
  tag,
  takeContent,
  takeElement,
  takeObjectId,
} from '../../src/crypto/der.ts';

/** C=US, O=SPIRE: the subject SPIRE's SVIDs have, which nothing should read. */
export const svidSubject = name([
  ['C', 'US'],
  ['O', 'SPIRE'],
]);

const attribute = { CN: '2.5.4.3', OU: '2.5.4.11' } as const;

/** Whether a Name has no parts. */
export function isEmptyName(der: Buffer): boolean {
  return peek(open(derCursor(der, 'subject'), tag.sequence)) < 0;
}

/** The Name with `value` as its only CN, put last. Throws `der/invalid` when `der` is no Name. */
export function withCommonName(der: Buffer, value: string): Buffer {
  return replaced(der, 'CN', value);
}

/** The Name with `value` as its only OU, put last. */
export function withOrganizationalUnit(der: Buffer, value: string): Buffer {
  return replaced(der, 'OU', value);
}

function replaced(der: Buffer, type: keyof typeof attribute & NameAttribute, value: string): Buffer {
  const whole = derCursor(der, 'subject');
  const parts = open(whole, tag.sequence);
  close(whole);
  const kept: Buffer[] = [];
  while (peek(parts) >= 0) {
    const part = takeElement(parts, tag.set);
    if (!holds(part, attribute[type])) kept.push(part);
  }
  const added = derCursor(name([[type, value]]), 'subject');
  kept.push(takeContent(added, tag.sequence));
  return sequence(...kept);
}

function holds(part: Buffer, objectId: string): boolean {
  const inside = open(derCursor(part, 'subject'), tag.set);
  while (peek(inside) >= 0) {
    if (takeObjectId(open(inside, tag.sequence)) === objectId) return true;
  }
  return false;
}

const shortNames: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.5': 'SERIALNUMBER',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
};

/** A Name for people, last part first (RFC 2253): `O=SPIRE,C=US`. */
export function nameText(der: Buffer): string {
  const parts = open(derCursor(der, 'subject'), tag.sequence);
  const texts: string[] = [];
  while (peek(parts) >= 0) {
    const attributes = open(parts, tag.set);
    while (peek(attributes) >= 0) {
      const inside = open(attributes, tag.sequence);
      const type = takeObjectId(inside);
      const value = takeContent(inside, peek(inside)).toString('utf8');
      texts.push(`${shortNames[type] ?? type}=${value.replace(/[,+"\\<>;=]/g, '\\$&')}`);
    }
  }
  return texts.reverse().join(',');
}
