/**
 * Names of keys in stores that allow few characters: letters, digits and `-` stand for themselves, every other byte is
 * `_` and two hex digits. It can be read back, and no two names become one.
 */
import type { Clock } from '../run/clock.ts';
import type { Random } from '../run/random.ts';

export function encodeName(name: string): string {
  return [...Buffer.from(name, 'utf8')]
    .map((byte) => {
      const char = String.fromCharCode(byte);
      return /[A-Za-z0-9-]/.test(char) ? char : `_${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}

/** The name again, or undefined for what `encodeName` does not write. */
export function decodeName(text: string): string | undefined {
  if (!/^(?:[A-Za-z0-9-]|_[0-9a-f]{2})*$/.test(text)) return undefined;
  const bytes = Buffer.from(
    text.replaceAll(/_([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
  const name = bytes.toString('utf8');
  return encodeName(name) === text ? name : undefined;
}

/**
 * Names generations of keys: 32 hex digits that begin with the time, each greater than the one before it, so that which of
 * two is newer can be read from them whatever a store does to order its keys.
 */
export function generations(clock: Clock, random: Random): () => string {
  let last = 0;
  return () => {
    last = Math.max(clock.now(), last + 1);
    const bytes = random.bytes(16);
    bytes.writeUIntBE(last, 0, 6);
    return bytes.toString('hex');
  };
}

/** When a generation was named, Unix milliseconds; undefined for what is none. */
export function generationTime(generation: string): number | undefined {
  return /^[0-9a-f]{32}$/.test(generation) ? Number.parseInt(generation.slice(0, 12), 16) : undefined;
}
