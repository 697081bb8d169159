/**
 * The kinds of values an option can have. A kind reads text once, at the edge, into a value that needs no second look,
 * and prints it back. Each refusal is the end of a sentence that the reader of options begins with the place and the key.
 */
import { isIPv6 } from 'node:net';
import { Fault, quote } from '../errors.ts';
import { parseId, parseTrustDomain, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { parseDuration, printDuration } from './duration.ts';
import { nearest } from './nearest.ts';

export interface Kind<T> {
  /** As the reference page names it: `duration`. */
  readonly name: string;
  /** As the help names it: `DURATION`. Empty for switches. */
  readonly placeholder: string;
  /** Set when the value is one of a few words. */
  readonly choices?: readonly string[];
  /** Set when the value is a list: flags repeat, variables hold the items with commas between. */
  readonly list?: true;
  /** Reads what was given, or throws a Fault whose message says what was expected. Lists take and give an array. */
  read(given: string | readonly string[]): T;
  print(value: T): string;
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Any text but the empty one. */
export const text: Kind<string> = scalar('text', 'TEXT', (given) => {
  if (given.includes('\0')) throw refuse(given, 'a text without NUL bytes');
  return given;
});

/** A path as the operating system takes it, relative to the working directory. */
export const path: Kind<string> = { ...text, name: 'path', placeholder: 'PATH' };

/** A Unix socket's path; `unix:///run/x.sock` and `unix:x.sock` are understood, other schemes are not. */
export const socketPath: Kind<string> = scalar('socket path', 'PATH', (given) => {
  const scheme = /^([a-z][a-z0-9+.-]*):/.exec(given)?.[1];
  if (scheme !== undefined && scheme !== 'unix') throw refuse(given, 'a Unix socket, such as /run/mutual/api.sock');
  const plain = given.replace(/^unix:(\/\/(?=\/))?/, '');
  if (plain === '' || plain.startsWith('//') || plain.includes('\0')) {
    throw refuse(given, 'a Unix socket, such as unix:///run/mutual/api.sock');
  }
  return plain;
});

/** `true` or `false`. */
export const toggle: Kind<boolean> = {
  ...scalar('switch', '', (given) => {
    if (given !== 'true' && given !== 'false') throw refuse(given, 'true or false');
    return given === 'true';
  }),
  choices: ['true', 'false'],
};

/** A whole number. */
export function count(least: number, most: number): Kind<number> {
  return scalar('number', 'NUMBER', (given) => {
    const value = /^-?\d{1,15}$/.test(given) ? Number(given) : Number.NaN;
    if (!(value >= least && value <= most)) throw refuse(given, `a whole number from ${least} to ${most}`);
    return value;
  });
}

/** Milliseconds, written as `90s` or `1h30m`. Bounds are in milliseconds, both allowed. */
export function duration(least: number, most: number): Kind<number> {
  const expected = 'a duration, which is whole numbers with units d, h, m, s or ms, such as 90s or 1h30m';
  return scalar(
    'duration',
    'DURATION',
    (given) => {
      const value = parseDuration(given);
      if (value === undefined) throw refuse(given, expected);
      if (value < least || value > most) {
        throw refuse(given, `a duration from ${printDuration(least)} to ${printDuration(most)}`);
      }
      return value;
    },
    printDuration,
  );
}

/** `HOST:PORT`, with IPv6 addresses in brackets. */
export function hostPort(leastPort: 0 | 1): Kind<HostPort> {
  return scalar(
    'address',
    'HOST:PORT',
    (given) => {
      const found = /^(?:\[([^\]]*)\]|([A-Za-z0-9._-]+)):(\d{1,6})$/.exec(given);
      const host = found?.[1] ?? found?.[2];
      if (host === undefined || (found?.[1] !== undefined && !isIPv6(host))) {
        throw refuse(given, 'HOST:PORT, such as 127.0.0.1:8081 or [::1]:8081');
      }
      const port = Number(found?.[3]);
      if (port < leastPort || port > 65535) {
        throw refuse(given, `HOST:PORT with a port from ${leastPort} to 65535`);
      }
      return Object.freeze({ host, port });
    },
    ({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`,
  );
}

/** One of a few words. */
export function choice<const T extends string>(...words: readonly T[]): Kind<T> {
  return {
    ...scalar('choice', words.join('|'), (given) => {
      const word = words.find((candidate) => candidate === given);
      if (word !== undefined) return word;
      const near = nearest(given, words);
      throw refuse(given, `one of ${words.join(', ')}`, near === undefined ? '' : `; did you mean ${quote(near)}?`);
    }),
    choices: words,
  };
}

/** A file mode in octal, such as `0770`. */
export const fileMode: Kind<number> = scalar(
  'file mode',
  'MODE',
  (given) => {
    const digits = /^(?:0o|0)?([0-7]{3})$/.exec(given)?.[1];
    if (digits === undefined) throw refuse(given, 'a file mode of three octal digits, such as 0770');
    return Number.parseInt(digits, 8);
  },
  (value) => value.toString(8).padStart(4, '0'),
);

export const trustDomain: Kind<TrustDomain> = scalar('trust domain', 'NAME', parseTrustDomain);

export const spiffeId: Kind<SpiffeId> = scalar('SPIFFE ID', 'SPIFFE-ID', parseId);

/** An `https` URL without a user name, a password or a fragment. */
export const httpsUrl: Kind<string> = scalar('URL', 'URL', (given) => {
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (url === undefined || url.protocol !== 'https:') throw refuse(given, 'an https URL');
  if (url.username !== '' || url.password !== '' || url.hash !== '') {
    throw refuse(given, 'an https URL without a user name, a password or a fragment');
  }
  return given;
});

/** The path part of a URL, such as `/live`. */
export const urlPath: Kind<string> = scalar('URL path', 'PATH', (given) => {
  if (!/^\/[A-Za-z0-9._/-]*$/.test(given)) throw refuse(given, 'a path that begins with "/", such as /live');
  return given;
});

/** A SHA-256 in hex; colons between bytes and upper case are understood, the value is 64 lower-case digits. */
export const sha256: Kind<string> = scalar('SHA-256', 'HEX', (given) => {
  const plain = given.replaceAll(':', '').toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(plain)) throw refuse(given, 'a SHA-256 of 64 hex digits');
  return plain;
});

/** Several values of one kind. The same value twice is a slip of the pen and is refused. */
export function listOf<T>(item: Kind<T>): Kind<readonly T[]> {
  return {
    name: `list of ${item.name}`,
    placeholder: item.placeholder,
    list: true,
    read(given) {
      const parts = typeof given === 'string' ? [given] : given;
      if (parts.length > 1000) throw new Fault('config/invalid', `has ${parts.length} items; at most 1000 are taken`);
      const twice = parts.find((part, index) => parts.indexOf(part) !== index);
      if (twice !== undefined) throw new Fault('config/invalid', `has ${quote(twice)} twice`);
      return Object.freeze(parts.map((part) => item.read(part)));
    },
    print: (value) => value.map((part) => item.print(part)).join(','),
  };
}

function scalar<T>(
  name: string,
  placeholder: string,
  read: (given: string) => T,
  print: (value: T) => string = String,
): Kind<T> {
  return {
    name,
    placeholder,
    read(given) {
      if (typeof given !== 'string') throw new Fault('config/invalid', 'is a list; give one value');
      if (given === '') throw new Fault('config/invalid', 'is empty; give a value or leave it out');
      return read(given);
    },
    print,
  };
}

function refuse(given: string, expected: string, more = ''): Fault {
  return new Fault('config/invalid', `${quote(given)} is not ${expected}${more}`);
}
