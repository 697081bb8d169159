/**
 * The log: one line an event, text for people or JSON for machines. What may pass is an allow-list: plain values under
 * harmless names. Bytes, keys and tokens never pass, whatever name they come under (src/log/redact.ts). The only importer
 * of pino.
 */
import pino from 'pino';
import { Fault, quote } from './errors.ts';
import { clean, type Loggable } from './log/redact.ts';
import { openFileSink, type Sink, standardError } from './log/sink.ts';
import { textLine } from './log/text.ts';
import type { Clock } from './run/clock.ts';

/** Most severe first. Nothing here is logged at `panic`: as a threshold it silences the log, as SPIRE's does. */
export const logLevels = ['panic', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof logLevels)[number];

/** `fields` are what happened to whom; `event` is a short constant text, such as `agent attested`. */
export type LogEvent = (fields: Readonly<Record<string, unknown>>, event: string) => void;

export interface Log {
  readonly trace: LogEvent;
  readonly debug: LogEvent;
  readonly info: LogEvent;
  readonly warn: LogEvent;
  readonly error: LogEvent;
  readonly fatal: LogEvent;
  /** A log whose events all carry `fields` too. Levels stay common to all. */
  child(fields: Readonly<Record<string, unknown>>): Log;
}

/** The log of a program: what its owner may do beside writing. */
export interface RootLog extends Log {
  readonly level: LogLevel;
  /** The level at the start, to which `setLevel` without an argument returns. */
  readonly launchLevel: LogLevel;
  setLevel(level?: LogLevel): void;
  /** The level of the configuration has changed: it is that of the start from now on, and in force. */
  launch(level: LogLevel): void;
  /** Opens the file anew, after it was moved away. Without a file does nothing. */
  reopen(): void;
  /** Writes what is still held and closes the file. */
  close(): void;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: 'json' | 'text';
  /** Appended to; made with mode 0640. Without it and without `write`, standard error. */
  readonly file?: string | undefined;
  readonly clock: Clock;
  /** Takes each line, with its newline, in place of a file. */
  readonly write?: (line: string) => void;
}

/** Opens a log. Throws `config/invalid` when the file cannot be opened. */
export function createLog(options: LogOptions): RootLog {
  let launchLevel = options.level;
  let level = launchLevel;
  let threshold = logLevels.indexOf(level);
  const sink = openSink(options);
  const wrap = (writer: Writer): Log => {
    const at = (name: LineLevel): LogEvent => {
      const rank = logLevels.indexOf(name);
      return (fields, event) => {
        if (rank <= threshold) writer.write(name, cleanFields(fields), clean(event) as string);
      };
    };
    return {
      trace: at('trace'),
      debug: at('debug'),
      info: at('info'),
      warn: at('warn'),
      error: at('error'),
      fatal: at('fatal'),
      child: (fields) => wrap(writer.child(cleanFields(fields))),
    };
  };

  function setLevel(next = launchLevel): void {
    level = next;
    threshold = logLevels.indexOf(next);
  }

  return {
    ...wrap(
      options.format === 'json' ? jsonWriter(jsonLogger(options.clock, sink)) : textWriter(options.clock, sink, {}),
    ),
    get level() {
      return level;
    },
    get launchLevel() {
      return launchLevel;
    },
    setLevel,
    launch(next) {
      // What an operator set in between stays when the configuration says what it said.
      if (next === launchLevel) return;
      launchLevel = next;
      setLevel();
    },
    reopen: sink.reopen,
    close: sink.close,
  };
}

type LineLevel = Exclude<LogLevel, 'panic'>;
type Fields = Record<string, Loggable>;

/** Writes lines of one format; what it is given is clean. */
interface Writer {
  write(level: LineLevel, fields: Fields, event: string): void;
  /** A writer whose lines all carry `fields` too. */
  child(fields: Fields): Writer;
}

function jsonLogger(clock: Clock, { write }: Sink): pino.Logger {
  return pino(
    {
      level: 'trace',
      base: null,
      messageKey: 'event',
      // Errors are cleaned before pino sees them; its own serializer would add to them.
      serializers: { err: (value: unknown) => value },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: () => `,"time":"${timeText(clock)}"`,
    },
    { write },
  );
}

const jsonWriter = (logger: pino.Logger): Writer => ({
  write: (level, fields, event) => logger[level](fields, event),
  child: (fields) => jsonWriter(logger.child(fields)),
});

const textWriter = (clock: Clock, sink: Sink, own: Fields): Writer => ({
  write: (level, fields, event) => sink.write(textLine(timeText(clock), level, event, { ...own, ...fields })),
  child: (fields) => textWriter(clock, sink, { ...own, ...fields }),
});

const timeText = (clock: Clock): string => new Date(clock.now()).toISOString();

/** Drops everything. For commands and tests that need a Log and want no lines. */
export const silentLog: Log = {
  trace: drop,
  debug: drop,
  info: drop,
  warn: drop,
  error: drop,
  fatal: drop,
  child: () => silentLog,
};

function drop(): void {}

/** Names that belong to the line itself; a field of that name would appear twice. */
const reserved = new Set(['level', 'time', 'event']);

function cleanFields(fields: Readonly<Record<string, unknown>>): Fields {
  const cleaned = clean(fields) as Fields;
  for (const name of reserved) if (Object.hasOwn(cleaned, name)) return renamed(cleaned);
  return cleaned;
}

function renamed(fields: Fields): Fields {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [reserved.has(name) ? `${name}_` : name, value]),
  );
}

function openSink({ file, write }: LogOptions): Sink {
  if (write !== undefined) return { write, reopen: drop, close: drop };
  if (file === undefined) return standardError;
  try {
    return openFileSink(file);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Fault('config/invalid', `log file ${quote(file)} cannot be opened: ${why}`, {
      hint: 'Give log.file a path in a directory that is there and may be written.',
      cause: error,
    });
  }
}
