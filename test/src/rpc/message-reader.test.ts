/** Messages put together from pieces of any size. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encoded } from '../../../src/rpc/encoded.ts';
import { MessageReader } from '../../../src/rpc/message-reader.ts';
import { fault } from '../../support/fault.ts';

function reading(most = 1 << 26) {
  const read: Buffer[] = [];
  return { read, reader: new MessageReader(most, (message) => read.push(message)) };
}

const messages = [Buffer.from('a'), Buffer.alloc(0), Buffer.from('some more'), Buffer.alloc(300, 'x'), Buffer.alloc(0)];
const stream = Buffer.concat(messages.map((message) => encoded(message).frame));

test('messages in pieces of any one size arrive as they were, the empty ones too', () => {
  for (let size = 1; size <= stream.length; size += 1) {
    const { read, reader } = reading();
    for (let at = 0; at < stream.length; at += size) reader.push(Buffer.from(stream.subarray(at, at + size)));
    assert.deepEqual(read, messages, `pieces of ${size} bytes`);
    assert.equal(reader.isMidway, false);
  }
});

test('a long message that comes slowly takes memory as it comes, and arrives whole', () => {
  const long = Buffer.alloc(5 << 20);
  for (let at = 0; at < long.length; at += 4) long.writeUInt32LE(at, at);
  const { frame } = encoded(long);
  const { read, reader } = reading();
  for (let at = 0; at < frame.length; at += 16_384) reader.push(frame.subarray(at, at + 16_384));
  assert.equal(Buffer.compare(read[0] as Buffer, long), 0);
});

test('a message does not hold on to the piece it came in', () => {
  const { read, reader } = reading();
  const piece = Buffer.alloc(65_536);
  encoded(Buffer.from('a')).frame.copy(piece);
  reader.push(piece.subarray(0, 6));
  assert.notEqual(read[0]?.buffer, piece.buffer);
});

test('whether it is in the middle of one is known from the first byte of the prefix on', () => {
  const { reader } = reading();
  for (const byte of [0, 0, 0, 0, 2, 1]) {
    reader.push(Buffer.from([byte]));
    assert.equal(reader.isMidway, true);
  }
  reader.push(Buffer.from([1]));
  assert.equal(reader.isMidway, false);
});

test('one that is longer than may be is refused by what it announces, and so is a compressed one', () => {
  assert.throws(
    () => reading(10).reader.push(Buffer.from([0, 0, 0, 0, 11])),
    fault('limit/exceeded', /^a message of 11 bytes came, and the most is 10$/),
  );
  assert.throws(
    () => reading().reader.push(Buffer.from([0, 255, 255, 255, 255])),
    fault('limit/exceeded', /4294967295/),
  );
  assert.throws(() => reading().reader.push(Buffer.from([1, 0, 0, 0, 1])), fault('peer/failed', /compressed/));
  const { read, reader } = reading(10);
  reader.push(encoded(Buffer.alloc(10)).frame);
  assert.equal(read.length, 1);
});
