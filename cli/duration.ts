/** Lengths of time and moments as people read them. */

/** `3723` seconds -> `1h2m3s`; the two largest units only from a day up. */
export function printSeconds(total: number): string {
  if (total < 0) return `-${printSeconds(-total)}`;
  const parts = (
    [
      ['d', Math.floor(total / 86_400)],
      ['h', Math.floor(total / 3600) % 24],
      ['m', Math.floor(total / 60) % 60],
      ['s', Math.floor(total) % 60],
    ] as const
  ).filter(([, count]) => count > 0);
  if (parts.length === 0) return '0s';
  const shown = parts[0]![0] === 'd' ? parts.slice(0, 2) : parts;
  return shown.map(([unit, count]) => `${count}${unit}`).join('');
}

/** Unix seconds as RFC 3339 in UTC, without fractions. */
export function printMoment(unixSeconds: number): string {
  return new Date(unixSeconds * 1000)
    .toISOString()
    .replace('.000Z', 'Z')
    .replace(/\.\d+Z$/, 'Z');
}

/** `2026-01-01T00:00:00Z (in 59m)`, or `(3m ago)`; zero is `never`. */
export function printDeadline(unixSeconds: number, nowMs: number): string {
  if (unixSeconds === 0) return 'never';
  const left = unixSeconds - Math.floor(nowMs / 1000);
  return `${printMoment(unixSeconds)} (${left >= 0 ? `in ${printSeconds(left)}` : `${printSeconds(-left)} ago`})`;
}
