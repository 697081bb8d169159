/** Options that both programs have, declared once. */
import { optional, type Rule, reloadable, section, setting } from '../config.ts';
import { quote } from '../errors.ts';
import { choice, hostPort, path, toggle, urlPath } from './kinds.ts';

/** `sun_path` holds 108 bytes with the closing zero. */
const longestSocketPath = 107;

export const sharedSections = {
  log: section('What the program says about itself.', {
    ...reloadable({
      level: setting(
        choice('panic', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'),
        'info',
        'The least severe events that are written. It can be changed while the program runs.',
      ),
    }),
    format: setting(choice('text', 'json'), 'text', 'One line an event, as text for people or as JSON.'),
    file: optional(path, 'A file to append to, opened anew on SIGUSR2. Without it the log goes to standard error.'),
  }),
  tls: section(
    'TLS between servers, agents and administrators. A hybrid post-quantum key exchange is always preferred.',
    {
      requirePostQuantum: setting(
        toggle,
        false,
        'Refuses every connection without one: TLS 1.3 with X25519MLKEM768 or a sibling of it. Go has it since 1.24.',
      ),
    },
  ),
  experimental: section('What no standard of SPIFFE names yet. Off, and it may change.', {
    mlDsa: setting(
      toggle,
      false,
      'Makes and takes keys of ML-DSA (FIPS 204) for certificates. Peers on other TLS libraries cannot verify them yet.',
    ),
  }),
  health: section('Checks over HTTP for supervisors. Off until `listen` is given.', {
    listen: optional(
      hostPort(0),
      'Where the checks are answered: 200 when well, 503 when not, with the reasons as JSON.',
    ),
    livePath: setting(urlPath, '/live', 'Whether the program should be left running.'),
    readyPath: setting(urlPath, '/ready', 'Whether it can serve now.'),
  }),
  metrics: section(
    'Metrics in the text format of Prometheus. Off until `listen` is given; it may be the address of `health`.',
    {
      listen: optional(hostPort(0), 'Where `/metrics` is answered.'),
    },
  ),
} as const;

interface SharedOptions {
  readonly health: { readonly livePath: string; readonly readyPath: string };
}

/** Options that name a key type: ML-DSA has to be asked for twice. */
export function mlDsaRules<K extends string>(
  ...keys: readonly K[]
): Rule<{ readonly [P in K]: string } & { readonly experimental: { readonly mlDsa: boolean } }>[] {
  return keys.map((key) => ({
    needs: [key],
    check(options, report) {
      if (!options[key].startsWith('ml-dsa')) return;
      const named = quote(options[key]);
      if (options.experimental.mlDsa) report.warn(key, `${named} is experimental: other programs cannot verify it yet`);
      else report.fault(key, `${named} is experimental; set experimental.mlDsa to true to use it`);
    },
  }));
}

/** A socket that this program opens: its path must fit the kernel's limit. */
export function ownSocketRules<K extends string>(
  ...keys: readonly K[]
): Rule<{ readonly [P in K]: string } & SharedOptions>[] {
  return [
    ...keys.map((key) => ({
      needs: [key],
      check(options: { readonly [P in K]: string }, report: Parameters<Rule<unknown>['check']>[1]) {
        const bytes = Buffer.byteLength(options[key]);
        if (bytes <= longestSocketPath) return;
        report.fault(
          key,
          `socket path ${quote(options[key])} is ${bytes} bytes long; the system takes at most ${longestSocketPath}: give a shorter one`,
        );
      },
    })),
    {
      needs: ['health.livePath', 'health.readyPath'],
      check({ health }, report) {
        if (health.livePath === health.readyPath) {
          report.fault('health.readyPath', `${quote(health.readyPath)} is also health.livePath; give two paths`);
        }
      },
    },
  ];
}
