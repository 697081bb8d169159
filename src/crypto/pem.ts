/** PEM (RFC 7468), read strictly enough to say what is wrong with a file. */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { Fault, quote } from '../errors.ts';

const block = /-----BEGIN ([A-Z0-9 ]+)-----([\s\S]*?)-----END ([A-Z0-9 ]+)-----/g;
const longest = 4 * 1024 * 1024;

/** One PEM block with 64 characters a line and a newline at its end. */
export function pemEncode(label: string, der: Uint8Array): string {
  const text = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64');
  return `-----BEGIN ${label}-----\n${text.replace(/.{1,64}/g, '$&\n')}-----END ${label}-----\n`;
}

/**
 * The contents of all blocks, which must all carry `label`; at least one. Text around blocks is skipped.
 * Throws `input/invalid` naming what was found instead.
 * @param what names the text in messages, such as a file's path
 */
export function pemDecode(text: string, label: string, what = 'PEM text'): Buffer[] {
  return blocks(text, what, label).map((found) => {
    if (found.label === label) return found.der;
    throw new Fault(
      'input/invalid',
      `${what} holds a ${quote(found.label)} block where only ${quote(label)} is expected`,
    );
  });
}

const keyLabels: Readonly<Record<string, 'pkcs8' | 'sec1' | 'pkcs1'>> = {
  'PRIVATE KEY': 'pkcs8',
  'EC PRIVATE KEY': 'sec1',
  'RSA PRIVATE KEY': 'pkcs1',
};

/**
 * Reads the one private key of a PEM text: PKCS#8, SEC1 or PKCS#1, not encrypted. Throws `input/invalid`.
 * @param what names the text in messages, such as a file's path
 */
export function readPrivateKeyPem(text: string, what: string): KeyObject {
  const found = blocks(text, what, 'PRIVATE KEY').filter(({ label }) => label !== 'EC PARAMETERS');
  const [key, second] = found;
  if (key === undefined) throw new Fault('input/invalid', `${what} holds no private key`);
  if (second !== undefined) {
    throw new Fault(
      'input/invalid',
      `${what} holds ${found.length} PEM blocks (${found.map(({ label }) => quote(label)).join(', ')}) where one private key is expected`,
    );
  }
  const type = keyLabels[key.label];
  if (key.label === 'ENCRYPTED PRIVATE KEY' || /Proc-Type:.*ENCRYPTED/.test(text)) {
    throw new Fault('input/invalid', `${what} holds an encrypted private key`, {
      hint: 'Decrypt it first, for example with: openssl pkey -in FILE -out FILE.',
    });
  }
  if (type === undefined)
    throw new Fault('input/invalid', `${what} holds a ${quote(key.label)} block where a private key is expected`);
  try {
    return createPrivateKey({ key: key.der, format: 'der', type });
  } catch (error) {
    throw new Fault('input/invalid', `${what} holds a private key that cannot be read`, { cause: error });
  }
}

function blocks(text: string, what: string, wanted: string): { label: string; der: Buffer }[] {
  if (text.length > longest) throw new Fault('input/invalid', `${what} is longer than ${longest} characters`);
  const found: { label: string; der: Buffer }[] = [];
  for (const [, label, body, ending] of text.matchAll(block)) {
    if (label !== ending)
      throw new Fault('input/invalid', `${what} begins a ${quote(label)} block and ends it as ${quote(ending)}`);
    // Old key files carry header lines ("Proc-Type: ...") and an empty line before the base64.
    const base64 = body!.replace(/^\s*(?:[A-Za-z-]+:[^\n]*\r?\n)+\r?\n/, '').replace(/\s+/g, '');
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64) || base64.length % 4 !== 0) {
      throw new Fault('input/invalid', `${what} holds a ${quote(label)} block that is not base64`);
    }
    found.push({ label: label!, der: Buffer.from(base64, 'base64') });
  }
  if (found.length > 0) return found;
  const seen = text.trim() === '' ? 'it is empty' : `it begins ${quote(text.trimStart().slice(0, 40))}`;
  throw new Fault('input/invalid', `${what} is not PEM: ${seen}`, {
    hint: `It should hold a block that begins -----BEGIN ${wanted}-----.`,
  });
}
