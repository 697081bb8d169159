/**
 * Entries as JSON. Read are the file format of SPIRE's `entry create -data` (IDs as text) and what
 * `entry show --output json` prints (IDs as trust_domain and path), so that entries can be moved between servers.
 */

import { nearest } from '../src/config/nearest.ts';
import { Fault, quote } from '../src/errors.ts';
import { checkDnsName } from '../src/spiffe/entry.ts';
import { parseId, parseTrustDomainOrId } from '../src/spiffe/id.ts';
import { makeSelector } from '../src/spiffe/selector.ts';
import { idFromWire, idToWire, selectorToWire } from '../src/wire/id.ts';
import type { Message } from './caller.ts';

type Reader = (value: unknown, at: string) => unknown;

const fault = (at: string, value: unknown, expected: string): Fault =>
  new Fault('input/invalid', `${at}: ${quote(value)} is not valid: expected ${expected}`);

const string: Reader = (value, at) => {
  if (typeof value !== 'string') throw fault(at, value, 'a text');
  return value;
};
const boolean: Reader = (value, at) => {
  if (typeof value !== 'boolean') throw fault(at, value, 'true or false');
  return value;
};
const whole: Reader = (value, at) => {
  const number = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;
  if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < 0)
    throw fault(at, value, 'a whole number of at least 0');
  return number;
};
const list =
  (item: Reader): Reader =>
  (value, at) => {
    if (!Array.isArray(value)) throw fault(at, value, 'a list');
    return value.map((each, index) => item(each, `${at}[${index}]`));
  };
const placed =
  (read: (text: string) => unknown): Reader =>
  (value, at) => {
    const given = string(value, at) as string;
    try {
      return read(given);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      throw new Fault('input/invalid', `${at}: ${error.message}`, error.hint === undefined ? {} : { hint: error.hint });
    }
  };
const id: Reader = (value, at) =>
  typeof value === 'object' && value !== null
    ? idToWire(
        idFromWire(object({ trust_domain: ['trust_domain', string], path: ['path', string] }, value, at) as never, at),
      )
    : placed((given) => idToWire(parseId(given)))(value, at);
const selector: Reader = (value, at) => {
  const { type = '', value: text = '' } = object(
    { type: ['type', string], value: ['value', string] },
    value,
    at,
  ) as Record<string, string>;
  return placed(() => selectorToWire(makeSelector(type, text)))('', at);
};
const ignored: Reader = () => undefined;

/** The keys an entry may have -> the field of the message and how it is read. */
const entryKeys: Record<string, readonly [field: string, read: Reader]> = {
  entry_id: ['id', string],
  id: ['id', string],
  spiffe_id: ['spiffe_id', id],
  parent_id: ['parent_id', id],
  selectors: ['selectors', list(selector)],
  x509_svid_ttl: ['x509_svid_ttl', whole],
  jwt_svid_ttl: ['jwt_svid_ttl', whole],
  federates_with: ['federates_with', list(placed(parseTrustDomainOrId))],
  dns_names: ['dns_names', list(placed(checkDnsName))],
  admin: ['admin', boolean],
  downstream: ['downstream', boolean],
  store_svid: ['store_svid', boolean],
  entryExpiry: ['expires_at', whole],
  entry_expiry: ['expires_at', whole],
  expires_at: ['expires_at', whole],
  hint: ['hint', string],
  additional_attributes: [
    'additional_attributes',
    (value, at) =>
      object(
        {
          disable_x509_svid_prefetch: ['disable_x509_svid_prefetch', boolean],
          jwt_svid_include_jti: ['jwt_svid_include_jti', boolean],
        },
        value,
        at,
      ),
  ],
  // Set by the server; there in what it printed.
  revision_number: ['revision_number', ignored],
  created_at: ['created_at', ignored],
};

/** Reads `{"entries": [...]}` into messages. Throws `input/invalid` with the path of the value, such as `entries[2].parent_id`. */
export function entriesFromJson(value: unknown): Message[] {
  const { entries } = object(
    { entries: ['entries', list(entry)], next_page_token: ['token', ignored] },
    value,
    'the data',
  ) as { entries?: Message[] };
  if (entries === undefined || entries.length === 0) {
    throw new Fault('input/invalid', 'the data has no entries', {
      hint: 'Write {"entries": [{"spiffe_id": ..., "parent_id": ..., "selectors": [...]}]}.',
    });
  }
  return entries;
}

const entry: Reader = (value, at) => {
  const read = object(entryKeys, value, at) as Record<string, unknown>;
  const missing = ['spiffe_id', 'parent_id', 'selectors'].filter((key) => read[key] === undefined);
  if (missing.length > 0) throw new Fault('input/invalid', `${at} has no ${missing.join(', ')}`);
  return { id: '', ...read };
};

function object(keys: Record<string, readonly [string, Reader]>, value: unknown, at: string): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fault(at, value, 'an object');
  const read: [string, unknown][] = [];
  for (const [key, item] of Object.entries(value)) {
    const known = Object.hasOwn(keys, key) ? keys[key] : undefined;
    if (known === undefined) {
      const near = nearest(key, Object.keys(keys));
      throw new Fault('input/invalid', `${at}: unknown key ${quote(key)}`, {
        hint: near === undefined ? `Known keys: ${Object.keys(keys).join(', ')}.` : `Did you mean ${quote(near)}?`,
      });
    }
    if (item === null) continue;
    const made = known[1](item, at === 'the data' ? key : `${at}.${key}`);
    if (made !== undefined) read.push([known[0], made]);
  }
  return Object.fromEntries(read);
}
