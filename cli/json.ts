/**
 * The one line that `--output json` prints, as SPIRE's commands do: snake_case names, keys sorted, zero values kept,
 * nulls left out, 64-bit integers as strings, bytes in standard base64, enums by name. Messages arrive from the wire
 * with that already done but for bytes, order and the names of oneofs.
 */

/** Prints a message, or a list of them, with its line end. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(canonical(value) ?? {})}\n`;
}

/**
 * Whether a key is no field but the loader's note of which member of a oneof is set: `bundle_endpoint_profile`, or for an
 * optional field its own name behind an underscore.
 */
function isOneof(key: string, item: unknown, message: object): boolean {
  if (typeof item !== 'string') return false;
  return key === 'bundle_endpoint_profile' || (key === `_${item}` && item in message);
}

function canonical(value: unknown): unknown {
  if (value === null || value === undefined) return undefined;
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object') return value;
  if (value instanceof Uint8Array)
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
  if (Array.isArray(value)) return value.map((item) => canonical(item) ?? null);
  // fromEntries defines own properties, so that a key such as __proto__ from a peer stays a key; entries whose value is
  // undefined are left out by JSON.stringify.
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, item]) => !isOneof(key, item, value))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, canonical(item)]),
  );
}

/** google.protobuf.Value as the loader gives it: the oneof's name and the field that is set. */
type StructValue = { readonly kind?: string } & Readonly<Record<string, unknown>>;
export interface Struct {
  readonly fields: Readonly<Record<string, StructValue>>;
}

/** google.protobuf.Struct -> plain JSON. */
export function plainStruct(struct: Struct | null | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(struct?.fields ?? {}).map(([key, value]) => [key, plainValue(value)]));
}

function plainValue(value: StructValue): unknown {
  const set = value.kind === undefined ? undefined : value[value.kind];
  switch (value.kind) {
    case 'structValue':
      return plainStruct(set as Struct);
    case 'listValue':
      return ((set as { values?: StructValue[] }).values ?? []).map(plainValue);
    case 'nullValue':
      return null;
    default:
      return set ?? null;
  }
}
