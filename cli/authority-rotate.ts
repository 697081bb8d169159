/** `authority rotate`: replaces the signing authorities of all servers, in order, and revokes the old ones when nobody needs them. */
import { Fault } from '../src/errors.ts';
import { sleep } from '../src/run/clock.ts';
import { withAdmin } from './admin.ts';
import type { Message } from './caller.ts';
import { command } from './command.ts';
import { printMoment } from './duration.ts';
import { adminSocket, choice, many, output, seconds, toggle, withDefault } from './flags.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { table } from './table.ts';

/** Milliseconds between two looks. */
const lookEvery = 500;
/** Agents named on a terminal; JSON names them all. */
const mostNamed = 20;

export const authorityRotate = command({
  summary: 'Replace the signing authorities of all servers, and prove that it reached everyone',
  about:
    'Prepares new authorities, lets them sign, taints the old ones so that everything under them is issued anew, and revokes them once every agent has followed. Until then it refuses to. What has been done is kept by the servers: after a crash, or at another server, give the same command again and it goes on.',
  flags: {
    planned: toggle('Wait for every agent, and for federated trust domains, before the new authorities sign'),
    emergency: toggle('The old keys may be known to others: let new ones sign as soon as reachable agents know them'),
    only: many(
      choice('KIND', ['x509', 'jwt', 'wit'], 'Rotate this kind alone', {
        hint: 'Give x509, jwt or wit; without --only all are rotated.',
      }),
    ),
    wait: withDefault(seconds('How long to wait for whoever has not followed'), 300),
    force: toggle('Go on, and revoke, although agents or servers have not followed'),
    output,
    adminSocket,
  },
  examples: [
    ['mutual authority rotate --planned', 'replaces the authorities of every kind with no connection dropped'],
    ['mutual authority rotate --emergency --only x509', 'gets rid of an X.509 authority whose key was stolen'],
  ],
  async run(values, ports) {
    if (values.planned === values.emergency) {
      throw new Fault('usage/invalid', 'give one of --planned and --emergency', {
        hint: 'Planned waits for everyone before anything new signs; in an emergency it does not.',
      });
    }
    return withAdmin(values.adminSocket, ports, async (admin) => {
      const tell = values.output === 'json' ? jsonProgress(ports) : progress(ports);
      let state = await admin.call('rotation', 'StartRotation', {
        mode: values.emergency ? 'EMERGENCY' : 'PLANNED',
        kinds: values.only.map((kind) => kind.toUpperCase()),
      });
      const { id } = state;
      tell(state);
      let since = ports.clock.now();
      while (state.step !== 'DONE') {
        const before = state;
        const waited = ports.clock.now() - since;
        // Force is for what waiting did not bring.
        const force = values.force && waited >= values.wait * 1000;
        if (waited >= values.wait * 1000 && !values.force) return refuse(state, values.output, ports);
        state = await admin.call('rotation', 'AdvanceRotation', { id, force });
        tell(state);
        if (state.step !== before.step || state.coverage.covered > before.coverage.covered) since = ports.clock.now();
        if (state.step === before.step) await sleep(ports.clock, lookEvery, ports.stop);
      }
      if (values.output !== 'json') ports.out(`\n${authorityTable(state, ports)}`);
      return 0;
    });
  },
});

/** A line of JSON whenever something has changed. */
function jsonProgress(ports: Ports): (state: Message) => void {
  let last = '';
  return (state) => {
    const line = jsonLine(state);
    const { waiting_for: _, ...lasting } = state;
    const text = jsonLine(lasting);
    if (text !== last) ports.out(line);
    last = text;
  };
}

const doing: Readonly<Record<string, string>> = {
  PREPARE: 'Prepare',
  ACTIVATE: 'Activate',
  TAINT: 'Taint',
  REVOKE: 'Revoke',
  DONE: 'Done',
};
const doneFlag: Readonly<Record<string, string>> = {
  PREPARE: 'prepared',
  ACTIVATE: 'activated',
  TAINT: 'tainted',
  REVOKE: 'revoked',
  DONE: 'revoked',
};

/** A line a step: on a terminal it grows in its place, elsewhere there is one for each change. */
function progress(ports: Ports): (state: Message) => void {
  let step = '';
  let last = '';
  return (state) => {
    const { authorities, coverage } = state;
    const done = authorities.filter((one: Message) => one[doneFlag[state.step]!] || one.left_out).length;
    const meaning = state.step === 'PREPARE' || state.step === 'ACTIVATE' ? 'hold the new' : 'have left the old';
    const polling = coverage.polling > 0 ? ` (${coverage.polling} only poll)` : '';
    const line = `${doing[state.step]!.padEnd(9)} ${done} of ${authorities.length} authorities, ${coverage.covered} of ${coverage.agents} agents ${meaning}${polling}`;
    if (line === last) return;
    if (ports.terminal) ports.out(`${step === '' ? '' : step === state.step ? '\r\u001b[2K' : '\n'}${line}`);
    else ports.out(`${line}\n`);
    step = state.step;
    last = line;
  };
}

/** What stands in the way, by name. */
function refuse(state: Message, format: 'pretty' | 'json', ports: Ports): never {
  const { coverage } = state;
  if (format !== 'json') {
    if (ports.terminal) ports.out('\n');
    const shown = coverage.uncovered.slice(0, mostNamed);
    const rows = shown.map(({ id, why, last_heard }: Message) => [
      id,
      why,
      Number(last_heard) === 0 ? 'never' : printMoment(Number(last_heard)),
    ]);
    if (rows.length > 0) ports.out(`\n${table(ports, ['AGENT', 'STANDS', 'LAST HEARD'], rows)}`);
    const more = coverage.agents - coverage.covered - shown.length;
    if (more > 0) ports.out(`and ${more} more\n`);
  }
  throw new Fault('state/refused', `not gone on after step "${state.step.toLowerCase()}": ${state.waiting_for}`, {
    hint: 'Give the same command again to go on waiting. What will never come back: evict it, or add --force.',
  });
}

/** What is gone: an authority, or the root above it; a root that is led to again stays. */
function authorityTable(state: Message, ports: Ports): string {
  const { authorities } = state;
  const rows = authorities.map((one: Message) => [
    one.kind === 'X509' ? 'X.509' : one.kind,
    one.server,
    one.root_stays || one.left_out ? '-' : one.old_root_id ? `root ${one.old_root_id}` : one.old_authority_id,
    one.left_out ? 'left as it was' : one.new_authority_id,
  ]);
  const stay = new Set(authorities.flatMap((one: Message) => (one.root_stays ? [one.old_root_id] : [])));
  const note = stay.size > 0 ? `\nWhat was signed below root ${[...stay].join(' and ')} stays trusted.\n` : '';
  return table(ports, ['KIND', 'SERVER', 'REVOKED', 'SIGNS NOW'], rows) + note;
}
