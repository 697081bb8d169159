/** JWT claims as google.protobuf.Struct, the form in which ValidateJWTSVID answers. */

interface WireValue {
  nullValue?: 0;
  numberValue?: number;
  stringValue?: string;
  boolValue?: boolean;
  structValue?: WireStruct;
  listValue?: { values: WireValue[] };
}
export interface WireStruct {
  fields: Record<string, WireValue>;
}

/** The deepest nesting that is passed on; a token of 16 KB could nest thousands. */
const deepest = 32;

/** Numbers beyond what a double holds lose precision there, as they do in every Struct. */
export function claimsToStruct(claims: Readonly<Record<string, unknown>>): WireStruct {
  return struct(claims, 0);
}

function struct(value: object, depth: number): WireStruct {
  return { fields: Object.fromEntries(Object.entries(value).map(([name, one]) => [name, wireValue(one, depth + 1)])) };
}

function wireValue(value: unknown, depth: number): WireValue {
  if (value === null || value === undefined || depth > deepest) return { nullValue: 0 };
  switch (typeof value) {
    case 'number':
      return { numberValue: value };
    case 'bigint':
      return { numberValue: Number(value) };
    case 'string':
      return { stringValue: value };
    case 'boolean':
      return { boolValue: value };
    default:
      if (Array.isArray(value)) return { listValue: { values: value.map((one) => wireValue(one, depth + 1)) } };
      return { structValue: struct(value as object, depth) };
  }
}

/**
 * The claims that a workload is told: all of its own trust domain's tokens, of others `sub`, `aud`, `exp` and what the
 * operator has allowed, since a foreign issuer may put anything there (WA-35).
 */
export function tellableClaims(
  claims: Readonly<Record<string, unknown>>,
  isOwn: boolean,
  allowed: readonly string[],
): Record<string, unknown> {
  if (isOwn) return { ...claims };
  const told = new Set(['sub', 'aud', 'exp', ...allowed]);
  return Object.fromEntries(Object.entries(claims).filter(([name]) => told.has(name)));
}
