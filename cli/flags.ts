/** Makers of flags: each reads one kind of value and refuses the rest in words. */
import { parseDuration } from '../src/config/duration.ts';
import { Fault, quote } from '../src/errors.ts';
import { checkDnsName } from '../src/spiffe/entry.ts';
import { parseId, parseTrustDomainOrId, type SpiffeId, type TrustDomain } from '../src/spiffe/id.ts';
import { parseSelector, type Selector } from '../src/spiffe/selector.ts';
import type { Flag } from './command.ts';

type Extra = Pick<Flag<unknown>, 'env' | 'also' | 'defaultText'>;

/** Any text but the empty one: an unset variable in a script is a mistake, not a value. */
export const text = (value: string, means: string, extra: Extra = {}): Flag<string | undefined> => ({
  value,
  means,
  read: (given) => {
    if (given === '')
      throw new Fault('input/invalid', 'the value "" is empty', { hint: `Give a ${value}, or leave the flag out.` });
    return given;
  },
  ...extra,
});

/** A text that may be empty, where empty says something. */
export const anyText = (value: string, means: string, extra: Extra = {}): Flag<string | undefined> => ({
  value,
  means,
  read: (given) => given,
  ...extra,
});

export const toggle = (means: string, extra: Extra = {}): Flag<boolean> => ({
  means,
  read: () => true,
  default: false,
  ...extra,
});

export const choice = <const C extends string>(
  value: string,
  choices: readonly C[],
  means: string,
  { hint, ...extra }: Extra & { readonly hint?: string } = {},
): Flag<C | undefined> => ({
  value,
  means,
  choices,
  read: (given) => {
    if ((choices as readonly string[]).includes(given)) return given;
    throw new Fault('input/invalid', `${quote(given)} is not one of ${choices.join(', ')}`, hint ? { hint } : {});
  },
  ...extra,
});

export const id = (value: string, means: string, extra: Extra = {}): Flag<SpiffeId | undefined> => ({
  value,
  means,
  read: parseId,
  ...extra,
});

export const trustDomain = (means: string, extra: Extra = {}): Flag<TrustDomain | undefined> => ({
  value: 'TRUST-DOMAIN',
  means,
  read: parseTrustDomainOrId,
  ...extra,
});

export const selector = (means: string, extra: Extra = {}): Flag<Selector | undefined> => ({
  value: 'TYPE:VALUE',
  means,
  read: parseSelector,
  ...extra,
});

export const dnsName = (means: string, extra: Extra = {}): Flag<string | undefined> => ({
  value: 'NAME',
  means,
  read: checkDnsName,
  ...extra,
});

/** A number of at least 1 that fits the wire's int32. */
export const wholeNumber = (value: string, means: string, extra: Extra = {}): Flag<number | undefined> => ({
  value,
  means,
  read: (given) => {
    if (/^[1-9]\d{0,9}$/.test(given) && Number(given) <= longestSeconds) return Number(given);
    throw new Fault('input/invalid', `${quote(given)} is not valid: expected a whole number from 1 up`);
  },
  ...extra,
});

const longestSeconds = 2 ** 31 - 1;

/** A length of time in whole seconds (the wire's int32): `10m`, `1h30m`, or a bare number of seconds as SPIRE takes it. */
export const seconds = (means: string, extra: Extra = {}): Flag<number | undefined> => ({
  value: 'DURATION',
  means,
  read: (given) => {
    const ms = /^\d{1,15}$/.test(given) ? Number(given) * 1000 : parseDuration(given);
    if (ms === undefined) {
      throw new Fault(
        'input/invalid',
        `duration ${quote(given)} is not valid: expected whole numbers with units d, h, m or s, largest first`,
        {
          hint: 'Write for example 90s, 10m or 1h30m; a bare number means seconds.',
        },
      );
    }
    if (ms % 1000 !== 0) throw new Fault('input/invalid', `duration ${quote(given)} is not a whole number of seconds`);
    if (ms / 1000 > longestSeconds) {
      throw new Fault('input/invalid', `duration ${quote(given)} is too long`, {
        hint: `The longest is ${longestSeconds}s.`,
      });
    }
    return ms / 1000;
  },
  ...extra,
});

/** A moment in Unix seconds, or an RFC 3339 time. */
export const moment = (means: string, extra: Extra = {}): Flag<number | undefined> => ({
  value: 'TIME',
  means,
  read: (given) => {
    if (/^\d{1,15}$/.test(given)) return Number(given);
    const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(given) ? Date.parse(given) : Number.NaN;
    if (Number.isNaN(ms)) {
      throw new Fault('input/invalid', `time ${quote(given)} is not valid`, {
        hint: 'Write Unix seconds, such as 1767225600, or an RFC 3339 time, such as 2026-01-01T00:00:00Z.',
      });
    }
    return Math.floor(ms / 1000);
  },
  ...extra,
});

export const required = <T>(flag: Flag<T | undefined>): Flag<T> => ({ ...(flag as Flag<T>), required: true });
export const many = <T>(flag: Flag<T | undefined>): Flag<readonly T[]> => ({
  ...(flag as Flag<never>),
  many: true,
  default: [],
});
export const withDefault = <T>(flag: Flag<T | undefined>, value: T): Flag<T> => ({
  ...(flag as Flag<T>),
  default: value,
});

export const output: Flag<'pretty' | 'json'> = withDefault(
  choice('FORMAT', ['pretty', 'json'], 'A table for people, or one line of JSON'),
  'pretty',
);

/** For commands of the server's admin socket. */
export const adminSocket = text('PATH', "The server's admin socket", {
  env: 'MUTUAL_ADMIN_SOCKET',
  also: ['socketpath'],
  defaultText: '.mutual/server/private/api.sock',
});

/** For commands of the Workload API. */
export const workloadSocket = text('PATH', "The agent's Workload API socket, as a path or unix:// address", {
  env: 'SPIFFE_ENDPOINT_SOCKET',
  also: ['socketpath'],
  defaultText: '.mutual/agent/public/api.sock',
});

export const timeout = withDefault(seconds('How long to wait for an answer'), 5);
