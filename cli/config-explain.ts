/** `config explain`: every option of a program with its value, where the value came from, and what it means. */
import { agentProgram, agentTable } from '../agent/config.ts';
import { serverProgram, serverTable } from '../server/config.ts';
import { type ExplainRow, explain } from '../src/config/describe.ts';
import { inspectOptions } from '../src/config/read.ts';
import type { Program, Table } from '../src/config.ts';
import { type Command, command } from './command.ts';
import { sourcesFrom, tableFlags } from './config-flags.ts';
import { output } from './flags.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { visible } from './visible.ts';

export const configExplain = command({
  summary: 'Explain the options of both programs',
  about:
    'With "server" or "agent" behind it, takes the flags of that program and shows the values in force and where each came from.',
  flags: { output },
  async run({ output: format }, ports) {
    const both = { server: explain(serverTable), agent: explain(agentTable) };
    if (format === 'json') ports.out(jsonLine({ server: both.server.map(jsonRow), agent: both.agent.map(jsonRow) }));
    else
      ports.out(
        `Options of the server\n\n${pretty(both.server, ports)}\nOptions of the agent\n\n${pretty(both.agent, ports)}`,
      );
    return 0;
  },
});

export const configExplainServer = explainer(serverProgram);
export const configExplainAgent = explainer(agentProgram);

// biome-ignore lint/suspicious/noExplicitAny: a program with any options
function explainer(program: Program<any, any>): Command {
  return command({
    summary: `Explain the options of the ${program.name}`,
    about:
      'Takes the flags and variables of the program itself, and shows the values in force and where each came from. Secrets are not shown.',
    flags: { ...tableFlags(program.table as Table, {}), output },
    async run({ output: format, ...given }, ports) {
      const values: Record<string, unknown> = given;
      const reading = await inspectOptions(program, await sourcesFrom(values, ports));
      const rows = explain(program.table as Table, reading);
      ports.out(format === 'json' ? jsonLine(rows.map(jsonRow)) : pretty(rows, ports));
      for (const problem of reading.problems) ports.err(`${visible(problem)}\n`);
      // Explaining without any configuration is a question, not a fault.
      return values.config !== undefined && reading.problems.length > 0 ? 2 : 0;
    },
  });
}

function pretty(rows: readonly ExplainRow[], ports: Ports): string {
  return rows
    .map((row) => {
      const value = row.value === '' ? '' : ` = ${visible(row.value)}${row.from === '' ? '' : ` (${row.from})`}`;
      const fallback = row.fallback === '' ? '' : `, default ${row.fallback}`;
      return `${ports.style('bold', row.path)}${value}\n    ${row.means}\n    ${row.type}${fallback}; ${row.flag}, ${row.env}\n`;
    })
    .join('');
}

const jsonRow = ({ fallback, ...row }: ExplainRow): object => ({ ...row, default: fallback });
