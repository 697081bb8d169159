/** `config check`: whether a program would take its configuration, with every fault and its place. */
import { agentProgram } from '../agent/config.ts';
import { serverProgram } from '../server/config.ts';
import { parseConfigFile } from '../src/config/file.ts';
import { inspectOptions } from '../src/config/read.ts';
import type { Program, Table } from '../src/config.ts';
import { type Command, command } from './command.ts';
import { sourcesFrom, tableFlags } from './config-flags.ts';
import { output, required, text } from './flags.ts';
import { readInput } from './input-file.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { visible } from './visible.ts';

// biome-ignore lint/suspicious/noExplicitAny: a program with any options
type AnyProgram = Program<any, any>;

export const configCheck = command({
  summary: 'Check a configuration file',
  about:
    'A file with the key "server" is read as the agent\'s, any other as the server\'s. Nothing is started. Exit code 2 when something is wrong.',
  flags: { config: required(text('FILE', 'A configuration file, YAML or JSON')), output },
  async run(values, ports) {
    const { root } = parseConfigFile(values.config, await readInput(values.config, '--config', ports));
    const isAgents = root?.is === 'map' && root.keys.has('server');
    return check(isAgents ? agentProgram : serverProgram, { config: values.config }, values.output, ports);
  },
});

export const configCheckServer = checker(serverProgram);
export const configCheckAgent = checker(agentProgram);

function checker(program: AnyProgram): Command {
  return command({
    summary: `Check the configuration of the ${program.name}`,
    about:
      'Takes the flags and variables of the program itself. Nothing is started. Exit code 2 when something is wrong.',
    flags: { ...tableFlags(program.table as Table, {}), output },
    run: ({ output: format, ...values }, ports) => check(program, values, format, ports),
  });
}

async function check(
  program: AnyProgram,
  values: Record<string, unknown>,
  format: 'pretty' | 'json',
  ports: Ports,
): Promise<number> {
  const { problems, warnings } = await inspectOptions(program, await sourcesFrom(values, ports));
  if (format === 'json') ports.out(jsonLine({ program: program.name, problems, warnings }));
  else {
    for (const warning of warnings) ports.err(`warning: ${visible(warning)}\n`);
    for (const problem of problems) ports.err(`error: ${visible(problem)}\n`);
    if (problems.length > 0) ports.err(`hint: "mutual config explain ${program.name}" lists every option.\n`);
    else ports.out(`The configuration of the ${program.name} is valid.\n`);
  }
  return problems.length === 0 ? 0 : 2;
}
