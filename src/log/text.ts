/** A line of the log for people: time, level, event, then the fields as name=value. */

const plainValue = /^[A-Za-z0-9_./:@%+,[\]-]+$/;

/** Turns one JSON line into one line of text. Control characters stay escaped, so that a value cannot forge a line. */
export function textLine(json: string): string {
  const { level, time, event, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const rest = [...flatten(fields, '')]
    .map(([name, value]) => ` ${escapeControls(name)}=${printValue(value)}`)
    .join('');
  return `${String(time)} ${String(level).toUpperCase().padEnd(5)} ${escapeControls(String(event))}${rest}\n`;
}

/** Nested fields read as `error.code=...`. */
function* flatten(fields: Record<string, unknown>, prefix: string): Generator<[string, unknown]> {
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      yield* flatten(value as Record<string, unknown>, `${prefix}${name}.`);
    } else {
      yield [`${prefix}${name}`, value];
    }
  }
}

function printValue(value: unknown): string {
  if (typeof value === 'string') return plainValue.test(value) ? value : escapeControls(JSON.stringify(value));
  return escapeControls(JSON.stringify(value));
}

/** JSON leaves DEL, C1 and the two Unicode line ends as they are; terminals act on them. */
function escapeControls(text: string): string {
  return text.replaceAll(/[\p{Cc}\u2028\u2029]/gu, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
