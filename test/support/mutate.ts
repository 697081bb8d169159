/** Damaged bytes for fuzzing: a few small changes to something that was right. */
import fc from 'fast-check';

type Change =
  | { do: 'set'; at: number; byte: number }
  | { do: 'flip'; at: number; bit: number }
  | { do: 'cut'; at: number; length: number }
  | { do: 'insert'; at: number; bytes: Uint8Array }
  | { do: 'double'; at: number; length: number }
  | { do: 'end'; at: number };

/** Places are fractions, so that a change means something for seeds of any length. */
const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const length = fc.integer({ min: 1, max: 40 });
/** Bytes that mean something in DER come up more often than chance would have them. */
const byte = fc.oneof(
  fc.integer({ min: 0, max: 255 }),
  fc.constantFrom(0, 1, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff, 0x02, 0x03, 0x04, 0x05, 0x06, 0x30, 0x31, 0xa0, 0xa3),
);

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ do: fc.constant('set' as const), at: place, byte }),
  fc.record({ do: fc.constant('flip' as const), at: place, bit: fc.integer({ min: 0, max: 7 }) }),
  fc.record({ do: fc.constant('cut' as const), at: place, length }),
  fc.record({ do: fc.constant('insert' as const), at: place, bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }) }),
  fc.record({ do: fc.constant('double' as const), at: place, length }),
  fc.record({ do: fc.constant('end' as const), at: place }),
);

/** One of the seeds with one to four changes. */
export function mutated(seeds: readonly Buffer[]): fc.Arbitrary<Buffer> {
  return fc
    .tuple(fc.constantFrom(...seeds), fc.array(change, { minLength: 1, maxLength: 4 }))
    .map(([seed, changes]) => changes.reduce(apply, seed));
}

function apply(bytes: Buffer, what: Change): Buffer {
  const at = Math.floor(what.at * bytes.length);
  switch (what.do) {
    case 'set':
      return Buffer.concat([bytes.subarray(0, at), Buffer.of(what.byte), bytes.subarray(at + 1)]);
    case 'flip':
      return Buffer.concat([
        bytes.subarray(0, at),
        Buffer.of((bytes[at] ?? 0) ^ (1 << what.bit)),
        bytes.subarray(at + 1),
      ]);
    case 'cut':
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + what.length)]);
    case 'insert':
      return Buffer.concat([bytes.subarray(0, at), what.bytes, bytes.subarray(at)]);
    case 'double':
      return Buffer.concat([bytes.subarray(0, at + what.length), bytes.subarray(at)]);
    case 'end':
      return bytes.subarray(0, at);
  }
}
