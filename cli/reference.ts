/** The reference page of the command line, docs/cli.md, made from the commands themselves. */
import { flagName } from './command.ts';
import { commands } from './commands.ts';
import { meaning } from './parse.ts';

/** The whole page as Markdown. */
export async function cliReference(): Promise<string> {
  const parts = [
    '# Command line',
    '',
    'One command, `mutual`. Every command explains itself with `--help`.',
    '',
    '- Exit code 0: done. 1: it failed, or an item of several did. 2: it was called wrongly. 130: a signal cut it short.',
    "- `--output json` prints one line in the shapes and field names of SPIRE's messages: keys sorted, zero values kept, 64-bit",
    '  integers as text, bytes in base64. Errors go to standard error as `error: ...`, and a line `hint: ...` with what to do.',
    "- SPIRE's spellings work too: `-spiffeID`, `-parentID`, `-socketPath`, `-x509SVIDTTL`; `token generate`, `healthcheck`,",
    '  `api fetch x509`, `entry create -node`.',
    '- Durations are written `90s`, `10m`, `1h30m`; a bare number is seconds.',
    '',
  ];
  for (const listed of commands) {
    const { summary, about, flags, examples = [] } = await listed.load();
    parts.push(`## mutual ${listed.path}`, '', `${summary}.`, '');
    if (about !== undefined) parts.push(about, '');
    if (listed.also !== undefined && listed.also.length > 0) {
      parts.push(`Also called as ${listed.also.map((each) => `\`mutual ${each}\``).join(', ')}.`, '');
    }
    const program = /^(server|agent) run$|^config (?:explain|check) (server|agent)$/.exec(listed.path);
    if (program) {
      const name = program[1] ?? program[2];
      parts.push(
        `Its flags are the options of the ${name}: see [config-${name}.md](config-${name}.md), and \`--config FILE\`.`,
        '',
      );
    } else if (Object.keys(flags).length > 0) {
      parts.push('| flag | meaning |', '|---|---|');
      for (const [key, flag] of Object.entries(flags)) {
        const value = flag.value === undefined ? '' : ` ${flag.value}`;
        parts.push(
          `| \`--${flagName(key)}${value.replaceAll('|', '\\|')}\` | ${meaning(flag).replaceAll('|', '\\|')} |`,
        );
      }
      parts.push('');
    }
    for (const [line, does] of examples) parts.push(`${does}:`, '', '```', line, '```', '');
  }
  return `${parts.join('\n').trimEnd()}\n`;
}
