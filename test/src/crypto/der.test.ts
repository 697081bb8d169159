import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bitString,
  boolean,
  type Cursor,
  close,
  context,
  derCursor,
  integer,
  namedBits,
  objectId,
  octetString,
  open,
  peek,
  sequence,
  set,
  tag,
  takeBits,
  takeBoolean,
  takeContent,
  takeElement,
  takeNamedBits,
  takeObjectId,
  takeSmall,
  takeTime,
  takeUnsigned,
  time,
  tlv,
} from '../../../src/crypto/der.ts';
import { Fault } from '../../../src/errors.ts';
import { fault } from '../../support/fault.ts';

const cursor = (hex: string): Cursor => derCursor(Buffer.from(hex, 'hex'), 'thing');

const refused: [name: string, hex: string, read: (at: Cursor) => unknown, why: RegExp][] = [
  ['an indefinite length', '30800000', (at) => open(at, tag.sequence), /indefinite/],
  ['a long form where the short one does', '04810100', (at) => takeContent(at, tag.octetString), /not minimal/],
  [
    'a length with a leading zero',
    `04820080${'00'.repeat(128)}`,
    (at) => takeContent(at, tag.octetString),
    /not minimal/,
  ],
  ['a length of five bytes', '04850000000001', (at) => takeContent(at, tag.octetString), /more than four/],
  ['a length beyond the end', '040500', (at) => takeContent(at, tag.octetString), /claims 5 bytes where 1 are left/],
  ['a huge length', '0484ffffffff', (at) => takeContent(at, tag.octetString), /claims 4294967295/],
  ['a cut off header', '30', (at) => open(at, tag.sequence), /cut off/],
  ['a cut off length', '0482', (at) => takeContent(at, tag.octetString), /cut off/],
  ['a tag of several bytes', '1f8101', (at) => takeElement(at), /several bytes/],
  ['an end-of-contents marker', '0000', (at) => takeElement(at), /end-of-contents/],
  ['another tag than expected', '0401ff', (at) => takeContent(at, tag.integer), /expected tag 0x02, found 0x04/],
  ['nothing where something is expected', '', (at) => takeContent(at, tag.integer), /found the end/],
  ['trailing bytes', '020101', (at) => close(at), /3 bytes are left over/],
  ['an empty INTEGER', '0200', takeSmall, /empty/],
  ['an INTEGER with a needless zero', '02020001', takeSmall, /not minimal/],
  ['an INTEGER with needless ones', '0202ff80', takeSmall, /not minimal/],
  ['a negative INTEGER', '0201ff', takeSmall, /negative/],
  ['an INTEGER too large', '02050100000000', takeSmall, /more than 4 bytes/],
  ['a BOOLEAN of 01', '010101', takeBoolean, /not DER/],
  ['a BOOLEAN of two bytes', '0102ffff', takeBoolean, /not DER/],
  ['a BIT STRING without its first byte', '0300', takeBits, /whole bytes/],
  ['a BIT STRING with unused bits where bytes are meant', '030204f0', takeBits, /whole bytes/],
  ['named bits with a trailing zero', '03020680', takeNamedBits, /not minimal/],
  ['named bits with a set unused bit', '03020781', takeNamedBits, /not minimal/],
  ['named bits with an empty last byte', '0303078000', takeNamedBits, /not minimal/],
  ['named bits with eight unused ones', '03020880', takeNamedBits, /malformed/],
  ['an empty OBJECT IDENTIFIER', '0600', takeObjectId, /length/],
  ['an OBJECT IDENTIFIER with a padded arc', '06032a8001', takeObjectId, /not minimal/],
  ['an OBJECT IDENTIFIER cut off', '06022a86', takeObjectId, /cut off/],
  ['an OBJECT IDENTIFIER with an enormous arc', '060b2affffffffffffffffff7f', takeObjectId, /enormous/],
  ['a time without seconds', '170b333030313031303030305a', takeTime, /form/],
  ['a time with an offset', '1711333030313031303030303030 2b30313030'.replace(' ', ''), takeTime, /form/],
  ['a 30th of February', '170d3330303233303030303030305a', takeTime, /does not exist/],
  ['a 25th hour', '170d3330303130313235303030305a', takeTime, /does not exist/],
  ['a fraction of a second', '1811323033303031303130303030 30302e355a'.replace(' ', ''), takeTime, /form/],
];
for (const [name, hex, read, why] of refused) {
  test(`refuses ${name}`, () => {
    assert.throws(() => read(cursor(hex)), fault('der/invalid', why));
  });
}

test('refuses more bytes than it was told to read, before reading', () => {
  assert.throws(() => derCursor(Buffer.alloc(11), 'thing', 10), fault('der/invalid', /11 bytes long; at most 10/));
});

test('refuses to go deeper than its limit', () => {
  let bytes = sequence();
  for (let depth = 0; depth < 40; depth++) bytes = sequence(bytes);
  const dive = (at: Cursor): void => {
    if (peek(at) >= 0) dive(open(at, tag.sequence));
  };
  assert.throws(() => dive(derCursor(bytes, 'thing')), fault('der/invalid', /deeper/));
});

test('reads back the unsigned integers it writes', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 160n - 1n }), (value) => {
      const at = derCursor(integer(value), 'thing');
      assert.equal(BigInt(`0x${takeUnsigned(at, 20).toString('hex')}`), value);
      close(at);
    }),
  );
});

test('reads back the object identifiers it writes', () => {
  const arc = fc.integer({ min: 0, max: 2 ** 31 });
  const id = fc
    .tuple(fc.constantFrom('0.9', '1.2', '1.39', '2.5', '2.16', '2.999'), fc.array(arc, { maxLength: 8 }))
    .map(([first, rest]) => [first, ...rest].join('.'));
  fc.assert(fc.property(id, (dotted) => assert.equal(takeObjectId(derCursor(objectId(dotted), 'thing')), dotted)));
});

test('reads back the times it writes, in UTCTime through 2049 and GeneralizedTime after', () => {
  fc.assert(
    fc.property(
      fc.date({ min: new Date('1950-01-01T00:00:00Z'), max: new Date('9999-12-31T23:59:59Z'), noInvalidDate: true }),
      (date) => {
        const ms = Math.floor(date.getTime() / 1000) * 1000;
        const bytes = time(date.getTime());
        assert.equal(takeTime(derCursor(bytes, 'thing')), ms);
        assert.equal(bytes[0], date.getUTCFullYear() < 2050 ? tag.utcTime : tag.generalizedTime);
      },
    ),
  );
});

test('reads back the named bits it writes, in their shortest form', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 9 - 1 }), (flags) =>
      assert.equal(takeNamedBits(derCursor(namedBits(flags), 'thing')), flags),
    ),
  );
});

test('writes lengths of every size in the shortest form', () => {
  for (const length of [0, 1, 127, 128, 255, 256, 65_535, 65_536, 70_000]) {
    const at = derCursor(tlv(tag.octetString, Buffer.alloc(length)), 'thing', 100_000);
    assert.equal(takeContent(at, tag.octetString).length, length);
    close(at);
  }
});

test('a SET is written in the order DER demands', () => {
  assert.deepEqual(set(integer(300), integer(2)), set(integer(2), integer(300)));
  assert.equal(set(integer(300), integer(2)).toString('hex'), '31070201020202012c');
});

test('views are given, not copies', () => {
  const bytes = sequence(octetString(Buffer.from('abc')));
  const content = takeContent(open(derCursor(bytes, 'thing'), tag.sequence), tag.octetString);
  bytes[4] = 0x58;
  assert.equal(content.toString(), 'Xbc');
});

/** Reads anything at all, by what its tags say. */
function walk(at: Cursor): void {
  while (peek(at) >= 0) {
    const next = peek(at);
    if (next === tag.integer) takeUnsigned(at, 64);
    else if (next === tag.boolean) takeBoolean(at);
    else if (next === tag.objectId) takeObjectId(at);
    else if (next === tag.bitString) takeNamedBits(at);
    else if (next === tag.utcTime || next === tag.generalizedTime) takeTime(at);
    else if ((next & 0x20) !== 0) walk(open(at, next));
    else takeElement(at);
  }
  close(at);
}

test('GHSA-86vr-4wcv-mm9w throws nothing but Faults, whatever the bytes', () => {
  const part = fc.oneof(
    fc.constantFrom(
      integer(5),
      boolean(true),
      objectId('1.2.3'),
      namedBits(5),
      time(0),
      octetString(),
      bitString(Buffer.of(1)),
      context(0, [integer(1)]),
    ),
    fc.uint8Array({ maxLength: 12 }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 6 }), fc.boolean(), (parts, wrapped) => {
      try {
        walk(derCursor(wrapped ? sequence(...parts) : Buffer.concat(parts), 'thing'));
      } catch (error) {
        assert.ok(error instanceof Fault && error.code === 'der/invalid', String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
