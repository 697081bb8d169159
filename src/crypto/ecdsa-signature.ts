/**
 * The two spellings of an ECDSA signature: DER, which certificates carry and most signers give, and r then s of fixed
 * width, which tokens carry (RFC 7518 §3.4). Converting costs a microsecond; asking the library for the second spelling
 * costs as much as the signature again.
 */
import type { Curve } from './algorithms.ts';
import { close, derCursor, integer, invalid, open, sequence, tag, takeUnsigned } from './der.ts';

/** Bytes of a coordinate, and so of r and of s. */
export const coordinateBytes: Readonly<Record<Curve, number>> = { 'P-256': 32, 'P-384': 48, 'P-521': 66 };

/** r and s of fixed width, from DER. Throws `der/invalid`. */
export function rawSignature(der: Buffer, curve: Curve): Buffer {
  const what = 'ECDSA signature';
  const width = coordinateBytes[curve];
  const whole = derCursor(der, what, 256);
  const numbers = open(whole, tag.sequence);
  close(whole);
  const [r, s] = [takeUnsigned(numbers, width), takeUnsigned(numbers, width)];
  close(numbers);
  if ((r.length === 1 && r[0] === 0) || (s.length === 1 && s[0] === 0)) throw invalid(what, 'a number is zero');
  const raw = Buffer.alloc(2 * width);
  r.copy(raw, width - r.length);
  s.copy(raw, 2 * width - s.length);
  return raw;
}

/** DER, from r and s of fixed width. Throws `der/invalid` when the width is not the curve's or a number is zero. */
export function derSignature(raw: Buffer, curve: Curve): Buffer {
  const width = coordinateBytes[curve];
  if (raw.length !== 2 * width) throw invalid('ECDSA signature', `it has ${raw.length} bytes, not ${2 * width}`);
  const [r, s] = [raw.subarray(0, width), raw.subarray(width)];
  if (r.every((byte) => byte === 0) || s.every((byte) => byte === 0))
    throw invalid('ECDSA signature', 'a number is zero');
  return sequence(integer(r), integer(s));
}
