/** `authority x509 | jwt | wit  show | prepare | activate | taint | revoke`: rotating a signing authority of this server by hand. */
import { withAdmin } from './admin.ts';
import type { Message } from './caller.ts';
import { type Command, command } from './command.ts';
import { printDeadline } from './duration.ts';
import { adminSocket, output, required, text } from './flags.ts';
import { jsonLine } from './json.ts';
import { block, table } from './table.ts';

const kinds = {
  x509: { wire: 'X509', name: 'X.509' },
  jwt: { wire: 'JWT', name: 'JWT' },
  wit: { wire: 'WIT', name: 'WIT' },
} as const;
export type AuthorityName = keyof typeof kinds;

const slots = ['active', 'prepared', 'old'] as const;
const flags = { output, adminSocket };
const oneFlags = { authorityId: required(text('ID', 'The authority, as "show" names it')), ...flags };

export function authorityShow(kind: AuthorityName): Command {
  return command({
    summary: `Show the ${kinds[kind].name} authorities of this server`,
    flags,
    async run(values, ports) {
      const state = await withAdmin(values.adminSocket, ports, (admin) =>
        admin.call('authority', `Get${kinds[kind].wire}AuthorityState`, {}),
      );
      if (values.output === 'json') ports.out(jsonLine(state));
      else {
        const isBelow = slots.some((slot) => state[slot]?.upstream_authority_subject_key_id);
        const rows = slots.map((slot) => [
          slot,
          ...cells(state[slot], ports.clock.now()),
          ...(isBelow ? [state[slot]?.upstream_authority_subject_key_id || '-'] : []),
        ]);
        const head = ['SLOT', 'AUTHORITY ID', 'EXPIRES', ...(isBelow ? ['UPSTREAM AUTHORITY'] : [])];
        ports.out(table(ports, head, rows));
      }
      return 0;
    },
  });
}

function cells(authority: Message | null, now: number): string[] {
  return authority ? [authority.authority_id, printDeadline(Number(authority.expires_at), now)] : ['-', '-'];
}

export function authorityPrepare(kind: AuthorityName): Command {
  return command({
    summary: `Make the next ${kinds[kind].name} authority and publish it`,
    about: 'It signs nothing yet: first every agent and every federated trust domain has to know it. Activate it then.',
    flags,
    async run(values, ports) {
      const response = await withAdmin(values.adminSocket, ports, (admin) =>
        admin.call('authority', `Prepare${kinds[kind].wire}Authority`, {}),
      );
      ports.out(values.output === 'json' ? jsonLine(response) : told(response.prepared_authority, 'Prepared', ports));
      return 0;
    },
  });
}

const steps = {
  activate: {
    verb: 'Activate',
    field: 'activated_authority',
    done: 'Activated',
    summary: (name: string) => `Let the prepared ${name} authority sign`,
    about: 'The one that signed until now becomes the old one; what it signed stays valid.',
  },
  taint: {
    verb: 'Taint',
    field: 'tainted_authority',
    done: 'Tainted',
    summary: (name: string) => `Have everything under the old ${name} authority issued anew`,
    about: 'Agents replace at once whatever it signed. Revoke it when nothing depends on it any more.',
  },
  revoke: {
    verb: 'Revoke',
    field: 'revoked_authority',
    done: 'Revoked',
    summary: (name: string) => `Take the tainted ${name} authority out of the bundle`,
    about: 'From then on whatever it signed is refused everywhere. There is no way back.',
  },
} as const;

export function authorityStep(kind: AuthorityName, step: keyof typeof steps): Command {
  const { verb, field, done, summary, about } = steps[step];
  return command({
    summary: summary(kinds[kind].name),
    about,
    flags: oneFlags,
    async run(values, ports) {
      const response = await withAdmin(values.adminSocket, ports, (admin) =>
        admin.call('authority', `${verb}${kinds[kind].wire}Authority`, { authority_id: values.authorityId }),
      );
      ports.out(values.output === 'json' ? jsonLine(response) : told(response[field], done, ports));
      return 0;
    },
  });
}

function told(
  authority: Message,
  done: string,
  ports: Parameters<typeof block>[0] & { clock: { now(): number } },
): string {
  return block(ports, [
    [done, authority.authority_id],
    ['Expires', printDeadline(Number(authority.expires_at), ports.clock.now())],
  ]);
}
