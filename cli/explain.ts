import { Fault } from '../src/errors.ts';
import { readEnded } from '../src/run/ended.ts';
import { type Message, withCaller } from './caller.ts';
import { command } from './command.ts';
import { printDeadline, printMoment } from './duration.ts';
import { selectorTexts } from './entry-text.ts';
import { type Elsewhere, elsewhereOnServer } from './explain-server.ts';
import { many, output, selector, text, wholeNumber } from './flags.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { agentAdmin, chooseSocket } from './socket-choice.ts';
import { block, table } from './table.ts';

export const explain = command({
  summary: 'Say why a process got no identity',
  about:
    "Asks the agent on its admin socket. The first line names the cause, the second says what to do; then comes what it follows from: which attestor found which selectors, the nearest entries with the selectors they lack, and how fresh the agent's knowledge is. Without --pid and --selector it explains the process whose call was refused last. What belongs to other nodes the agent does not know and is never told; with --server-admin-socket the server is asked as well, by whoever may open that socket. Exit code 1 unless nothing is wrong.",
  flags: {
    pid: wholeNumber('PID', 'The process, by its number as the agent sees it'),
    selector: many(selector('What a process would have, in place of one; may be repeated')),
    adminSocket: text('PATH', "The agent's admin socket", {
      also: ['socketpath'],
      env: 'MUTUAL_AGENT_ADMIN_SOCKET',
      defaultText: '.mutual/agent/private/admin.sock',
    }),
    serverAdminSocket: text('PATH', "The server's admin socket, to look for entries of other nodes"),
    output,
  },
  examples: [
    ['mutual explain', 'Why the last refused call was refused'],
    [
      'mutual explain --pid 4242 --server-admin-socket /var/lib/mutual/server/private/api.sock',
      'One process, and the server asked too',
    ],
    ['mutual explain --selector unix:uid:1000', 'What a process of that user would get'],
  ],
  async run({ pid, selector: selectors, adminSocket, serverAdminSocket, output: format }, ports) {
    if (pid !== undefined && selectors.length > 0)
      throw new Fault('usage/invalid', '--pid and --selector are both given', { hint: 'Keep one of them.' });
    const wire = selectors.map((one) => {
      const colon = one.indexOf(':');
      return { type: one.slice(0, colon), value: one.slice(colon + 1) };
    });
    const found: Message = await askAgent(adminSocket, { pid: pid ?? 0, selectors: wire }, ports);
    const elsewhere =
      serverAdminSocket === undefined ? undefined : await elsewhereOnServer(found, serverAdminSocket, ports);
    const told: Message = { ...found, ...elsewhere?.instead, elsewhere: elsewhere?.entries ?? [] };
    ports.out(format === 'json' ? jsonLine(told) : printed(told, ports));
    return told.cause === 'served' ? 0 : 1;
  },
});

async function askAgent(given: string | undefined, request: object, ports: Ports): Promise<Message> {
  try {
    return await withCaller(agentAdmin, given, ports, (caller) =>
      caller.call('mutual.agent.v1.Explain', 'Explain', request),
    );
  } catch (error) {
    // Nobody there: perhaps the agent left a note on why it ended.
    if (!(error instanceof Fault) || error.code !== 'peer/unavailable') throw error;
    const ended = await readEnded((await chooseSocket(agentAdmin, given, ports)).path);
    if (ended === undefined) throw error;
    const at = printMoment(Math.floor(ended.at / 1000));
    throw new Fault('peer/unavailable', `the agent ended at ${at}: ${ended.why}`, {
      hint: ended.hint === '' ? 'See its log.' : ended.hint,
      cause: error,
    });
  }
}

function printed(told: Message, ports: Ports): string {
  const lack = (entry: Message): string => selectorTexts(entry.lacking).join(' ');
  const parts = [
    `${told.summary}\n`,
    told.advice === '' ? '' : `${told.advice}\n`,
    `\n${block(ports, [
      ['Agent', told.agent_id || '(not attested)'],
      ['Up to date', printDeadline(Number(told.last_sync), ports.clock.now())],
      ['Server', told.outage === '' ? 'reachable' : told.outage],
      ['Entries', String(told.entries)],
      ['Process', told.pid === 0 ? '(selectors given)' : String(told.pid)],
      ['Selectors', told.attestors.length > 0 ? [] : selectorTexts(told.selectors)],
    ])}`,
  ];
  const part = (head: readonly string[], rows: readonly (readonly string[])[]): void => {
    if (rows.length > 0) parts.push(`\n${table(ports, head, rows)}`);
  };
  part(
    ['ATTESTOR', 'FOUND'],
    told.attestors.map((one: Message) => [
      one.name,
      one.error === '' ? selectorTexts(one.selectors).join('\n') : `failed: ${one.error}`,
    ]),
  );
  part(
    ['MATCHING ENTRY', 'SPIFFE ID', 'BUT'],
    told.matching.map((entry: Message) => [entry.id, entry.spiffe_id, entry.obstacle || '-']),
  );
  part(
    ['NEAREST ENTRY', 'SPIFFE ID', 'LACKING'],
    told.nearest.map((entry: Message) => [entry.id, entry.spiffe_id, lack(entry)]),
  );
  part(
    ['ON THE SERVER', 'SPIFFE ID', 'PARENT', 'WHY NOT HERE'],
    told.elsewhere.map((entry: Elsewhere) => [entry.id, entry.spiffe_id, entry.parent_id, entry.why]),
  );
  part(
    ['REFUSED', 'CALL', 'WHY'],
    told.refusals.map((one: Message) => [
      printDeadline(Number(one.at), ports.clock.now()),
      one.method.slice(one.method.lastIndexOf('/') + 1),
      one.message,
    ]),
  );
  return parts.join('');
}
