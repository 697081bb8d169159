/** The filters of `agent list` and `count`, and agents for people. */
import { Fault, quote } from '../src/errors.ts';
import { selectorToWire } from '../src/wire/id.ts';
import type { Message } from './caller.ts';
import type { Flag, Values } from './command.ts';
import { printDeadline } from './duration.ts';
import { selectorTexts, wireId } from './entry-text.ts';
import { adminSocket, choice, many, output, selector, text, withDefault } from './flags.ts';
import type { Ports } from './ports.ts';
import { block, table } from './table.ts';

/** `true`, `false`, or every agent. */
const either = (means: string): Flag<'true' | 'false' | 'all'> =>
  withDefault(choice('true|false|all', ['true', 'false', 'all'], means), 'all');

/** The layout in which the request carries a time: Go's `2006-01-02 15:04:05 -0700 -07`. */
const goTime = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} [+-]\d\d$/;

const expiresBefore: Flag<string | undefined> = {
  value: 'TIME',
  means: 'Only agents whose SVIDs expire before this time',
  read(given) {
    if (goTime.test(given)) return given;
    const ms = /^\d{1,12}$/.test(given)
      ? Number(given) * 1000
      : /^\d{4}-\d\d-\d\dT/.test(given)
        ? Date.parse(given)
        : Number.NaN;
    if (Number.isNaN(ms)) {
      throw new Fault('input/invalid', `time ${quote(given)} is not valid`, {
        hint: 'Write Unix seconds, 2026-01-01T00:00:00Z, or "2026-01-01 00:00:00 +0000 +00".',
      });
    }
    return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} +0000 +00`;
  },
};

export const agentFilterFlags = {
  attestationType: text('TYPE', 'Only agents attested in this way, such as join_token or x509pop'),
  selector: many(selector('Only agents with this selector; see --match-selectors-on')),
  matchSelectorsOn: withDefault(
    choice('MODE', ['exact', 'any', 'superset', 'subset'], 'How the selectors given must match'),
    'superset',
  ),
  banned: either('Only banned agents, or only others'),
  canReattest: either('Only agents that can attest again, or only others'),
  expiresBefore,
  output,
  adminSocket,
};

/** The filter of a list or count request. */
export function agentFilter(values: Values<typeof agentFilterFlags>): Message {
  return {
    ...(values.attestationType !== undefined && { by_attestation_type: values.attestationType }),
    ...(values.selector.length > 0 && {
      by_selector_match: {
        selectors: values.selector.map(selectorToWire),
        match: `MATCH_${values.matchSelectorsOn.toUpperCase()}`,
      },
    }),
    ...(values.banned !== 'all' && { by_banned: { value: values.banned === 'true' } }),
    ...(values.canReattest !== 'all' && { by_can_reattest: { value: values.canReattest === 'true' } }),
    ...(values.expiresBefore !== undefined && { by_expires_before: values.expiresBefore }),
  };
}

export function agentTable(agents: readonly Message[], ports: Ports): string {
  return table(
    ports,
    ['SPIFFE ID', 'ATTESTED BY', 'EXPIRES', 'STATE', 'VERSION'],
    agents.map((agent) => [
      wireId(agent.id),
      agent.attestation_type,
      printDeadline(Number(agent.x509svid_expires_at), ports.clock.now()),
      agent.banned ? 'banned' : agent.can_reattest ? 'can re-attest' : 'joined once',
      agent.agent_version ?? '',
    ]),
  );
}

export function agentBlock(agent: Message, ports: Ports): string {
  return block(ports, [
    ['SPIFFE ID', wireId(agent.id)],
    ['Attested by', agent.attestation_type],
    ['SVID expires', printDeadline(Number(agent.x509svid_expires_at), ports.clock.now())],
    ['Serial number', agent.banned ? undefined : agent.x509svid_serial_number],
    ['Banned', agent.banned ? 'yes' : 'no'],
    ['Can re-attest', agent.can_reattest ? 'yes' : 'no'],
    ['Version', agent.agent_version],
    ['Selectors', selectorTexts(agent.selectors)],
  ]);
}
