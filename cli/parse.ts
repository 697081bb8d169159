/** Reads a command's flags with commander, and turns its complaints into ours: every fault, quoted, with what to do. */
import { CommanderError, Option, Command as Parser } from 'commander';
import { nearest } from '../src/config/nearest.ts';
import { Fault, quote } from '../src/errors.ts';
import { rewriteFlags } from './argv.ts';
import { type Command, type Flag, flagName } from './command.ts';

export type Parsed = { readonly help: string } | { readonly values: Record<string, unknown> };

/**
 * @param path the command's words
 * @param words what follows them
 * @throws AggregateError of `usage/invalid` Faults, or one such Fault
 */
export function parse(command: Command, path: string, words: readonly string[]): Parsed {
  const parser = parserOf(command, path, () => '');
  try {
    parser.parse(rewriteFlags(words, command.flags), { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.code === 'commander.helpDisplayed')
      return { help: helpOf(command, path) };
    throw error instanceof CommanderError ? complaint(error, command, path) : error;
  }
  const faults: Fault[] = parser.args.map(
    (word) =>
      new Fault('usage/invalid', `unexpected argument ${quote(word)} after ${quote(`mutual ${path}`)}`, {
        hint: `This command takes flags only; see "mutual ${path} --help".`,
      }),
  );
  const raw = parser.opts<Record<string, string | string[] | boolean>>();
  const values: Record<string, unknown> = {};
  for (const [key, flag] of Object.entries(command.flags)) {
    try {
      values[key] = readValue(flag, raw[key]);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      faults.push(
        new Fault(
          'usage/invalid',
          `--${flagName(key)}: ${error.message}`,
          error.hint === undefined ? {} : { hint: error.hint },
        ),
      );
    }
  }
  const missing = Object.entries(command.flags).filter(([key, flag]) => flag.required && isMissing(raw[key]));
  if (missing.length > 0) {
    const names = missing.map(([key, flag]) => `--${flagName(key)} ${flag.value}`);
    faults.push(
      new Fault(
        'usage/invalid',
        `required ${names.length === 1 ? 'flag is' : 'flags are'} missing: ${names.join(', ')}`,
        {
          hint: `See "mutual ${path} --help".`,
        },
      ),
    );
  }
  if (faults.length === 1) throw faults[0];
  if (faults.length > 1) throw new AggregateError(faults);
  return { values };
}

const isMissing = (given: unknown): boolean => given === undefined || (Array.isArray(given) && given.length === 0);

function readValue(flag: Flag<unknown>, given: string | string[] | boolean | undefined): unknown {
  if (given === undefined) return flag.default;
  if (Array.isArray(given)) return given.map((each) => flag.read(each));
  return flag.read(String(given));
}

/** @param describe what the help says of a flag: most starts print none */
function parserOf(command: Command, path: string, describe: (flag: Flag<unknown>) => string): Parser {
  const parser = new Parser(`mutual ${path}`)
    .exitOverride()
    .configureOutput({ writeOut: () => {}, writeErr: () => {} })
    .usage(command.flags && Object.keys(command.flags).length > 0 ? '[flags]' : '')
    .summary(command.summary)
    .description([command.summary, ...(command.about === undefined ? [] : [command.about])].join('.\n\n'))
    .helpOption('-h, --help', 'Show this help')
    .allowExcessArguments(true)
    .configureHelp({ styleTitle: (title) => (title === 'Options:' ? 'Flags:' : title) });
  for (const [key, flag] of Object.entries(command.flags)) {
    const option = new Option(
      `--${flagName(key)}${flag.value === undefined ? '' : flag.bare ? ` [${flag.value}]` : ` <${flag.value}>`}`,
      describe(flag),
    );
    option.attributeName = () => key;
    if (flag.many) option.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
    parser.addOption(option);
  }
  return parser;
}

/** What a flag does, with its choices, default and variable. */
export function meaning(flag: Flag<unknown>): string {
  const shownDefault =
    flag.defaultText ??
    (flag.many || flag.value === undefined || flag.default === undefined ? undefined : String(flag.default));
  const notes = [
    ...(flag.required ? ['required'] : []),
    ...(flag.many ? ['may be repeated'] : []),
    ...(flag.choices ? [`one of ${flag.choices.join(', ')}`] : []),
    ...(shownDefault === undefined ? [] : [`default ${shownDefault}`]),
    ...(flag.env === undefined ? [] : [`or variable ${flag.env}`]),
  ];
  return notes.length === 0 ? flag.means : `${flag.means} (${notes.join('; ')})`;
}

/** The help text of one command. */
export function helpOf(command: Command, path: string): string {
  const examples = (command.examples ?? []).map(([line, does]) => `  ${does}:\n    ${line}\n`);
  return (
    parserOf(command, path, meaning).helpInformation() +
    (examples.length === 0 ? '' : `\nExamples:\n${examples.join('')}`)
  );
}

function complaint(error: CommanderError, command: Command, path: string): Fault {
  const named = /'([^']*)'/.exec(error.message)?.[1] ?? '';
  const see = `See "mutual ${path} --help".`;
  if (error.code === 'commander.unknownOption') {
    const names = Object.keys(command.flags).map((key) => `--${flagName(key)}`);
    const near = nearest(named, names);
    return new Fault('usage/invalid', `unknown flag ${quote(named)} of ${quote(`mutual ${path}`)}`, {
      hint: near === undefined ? see : `Did you mean ${near}? ${see}`,
    });
  }
  if (error.code === 'commander.optionMissingArgument') {
    return new Fault('usage/invalid', `flag ${named.replace('<', '').replace('>', '')} has no value`, { hint: see });
  }
  return new Fault('usage/invalid', error.message.replace(/^error: /, ''), { hint: see });
}
