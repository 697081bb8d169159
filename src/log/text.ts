/** A line of the log for people: time, level, event, then the fields as name=value. */
import type { Loggable } from './redact.ts';

const plainValue = /^[A-Za-z0-9_./:@%+,[\]-]+$/;
const printable = /^[\x20-\x7e]*$/;

/**
 * Prints one event as one line of text. Control characters are escaped, so that a value cannot forge a line.
 * @param time as it is to stand there
 * @param fields cleaned already
 */
export function textLine(
  time: string,
  level: string,
  event: string,
  fields: Readonly<Record<string, Loggable>>,
): string {
  return `${time} ${level.toUpperCase().padEnd(5)} ${escapeControls(event)}${printFields(fields, '')}\n`;
}

/** Nested fields read as `error.code=...`. */
function printFields(fields: Readonly<Record<string, Loggable>>, prefix: string): string {
  let text = '';
  for (const name of Object.keys(fields)) {
    const value = fields[name] as Loggable;
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      text += printFields(value, `${prefix}${name}.`);
    } else {
      text += ` ${escapeControls(prefix + name)}=${printValue(value)}`;
    }
  }
  return text;
}

function printValue(value: Loggable): string {
  if (typeof value === 'string' && plainValue.test(value)) return value;
  return escapeControls(JSON.stringify(value));
}

/** JSON leaves DEL, C1 and the two Unicode line ends as they are; terminals act on them. */
function escapeControls(text: string): string {
  if (printable.test(text)) return text;
  return text.replaceAll(/[\p{Cc}\u2028\u2029]/gu, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
