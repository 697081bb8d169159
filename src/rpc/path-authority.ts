/**
 * Java's clients on a Unix socket. grpc-java sends the path of the socket as `:authority`, which HTTP/2 does not allow there
 * (a slash ends an authority, RFC 3986 3.2); nghttp2 below Node answers PROTOCOL_ERROR, so that no java-spiffe workload
 * would ever get an identity. Nobody here reads the authority: it is made a legal one of the same length on its way in.
 * Only connections that begin as grpc-java's do are looked into; all others stay with the kernel and nghttp2.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const frameHeader = 9;
const frame = { headers: 1, settings: 4 } as const;
const flag = { padded: 0x08, priority: 0x20 } as const;
/** SETTINGS_MAX_CONCURRENT_STREAMS: of a client's, how many streams the server may open. */
const maxConcurrentStreams = 3;
/** The largest frame that is taken before a larger one was agreed on (RFC 9113 6.5.2). */
const largestFrame = 16_384;

/**
 * Waits for the first bytes of a connection, then gives what to speak HTTP/2 on: the socket as it is, or one behind which
 * the authority is mended. A connection that ends before it says anything is never given.
 */
export function whenOpened(socket: Socket, use: (through: Socket | Duplex) => void): void {
  let begun: Buffer = Buffer.alloc(0);
  const look = (): void => {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) return;
    begun = begun.length === 0 ? chunk : Buffer.concat([begun, chunk]);
    const client = clientOf(begun);
    if (client === undefined) return;
    socket.off('readable', look);
    socket.unshift(begun);
    use(client === 'grpc-java' ? mendedSocket(socket) : socket);
  };
  socket.on('readable', look);
}

/**
 * Who has begun so: grpc-java's SETTINGS let the server open no stream (MAX_CONCURRENT_STREAMS of 0), which no other
 * client says. Undefined while that cannot be told yet.
 */
export function clientOf(begun: Buffer): 'grpc-java' | 'other' | undefined {
  const seen = Math.min(begun.length, preface.length);
  if (begun.compare(preface, 0, seen, 0, seen) !== 0) return 'other';
  const settings = begun.subarray(preface.length);
  if (settings.length < frameHeader) return undefined;
  const length = settings.readUIntBE(0, 3);
  if (settings[3] !== frame.settings || length > largestFrame) return 'other';
  if (settings.length < frameHeader + length) return undefined;
  for (let at = frameHeader; at + 6 <= frameHeader + length; at += 6) {
    if (settings.readUInt16BE(at) === maxConcurrentStreams && settings.readUInt32BE(at + 2) === 0) return 'grpc-java';
  }
  return 'other';
}

/** The same connection, read through `authorityMender`. */
function mendedSocket(socket: Socket): Duplex {
  const mend = authorityMender();
  const through = new Duplex({
    read: () => void socket.resume(),
    write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, done),
    final: (done) => void socket.end(done),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  socket.on('data', (chunk: Buffer) => {
    const mended = mend(chunk);
    if (mended.length > 0 && !through.push(mended)) socket.pause();
  });
  socket.on('end', () => through.push(null));
  socket.on('close', () => through.destroy());
  return through;
}

/**
 * Gives what a client sent, piece by piece and of the same length in all, with each `:authority` legal. A frame of headers
 * is held back until it is whole; everything else passes as it comes.
 */
export function authorityMender(): (chunk: Buffer) => Buffer {
  let passing = preface.length;
  let held: Buffer = Buffer.alloc(0);
  return (chunk) => {
    const bytes = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    let at = 0;
    for (;;) {
      const step = Math.min(passing, bytes.length - at);
      at += step;
      passing -= step;
      if (passing > 0 || bytes.length - at < frameHeader) break;
      const length = bytes.readUIntBE(at, 3);
      const isHeaders = bytes[at + 3] === frame.headers && length <= largestFrame;
      if (isHeaders) {
        if (bytes.length - at < frameHeader + length) break;
        mendHeaders(bytes.subarray(at + frameHeader, at + frameHeader + length), bytes[at + 4]!);
      }
      passing = frameHeader + length;
    }
    held = bytes.subarray(at);
    return bytes.subarray(0, at);
  };
}

/** Mends the payload of a HEADERS frame in place (RFC 9113 6.2; the fields as in RFC 7541 6). What is broken stays so. */
function mendHeaders(payload: Buffer, flags: number): void {
  let at = 0;
  const integer = (bits: number): number => {
    const most = (1 << bits) - 1;
    let value = payload[at++]! & most;
    if (value < most) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = payload[at++]!;
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return Number.NaN;
  };
  const text = (): { start: number; end: number; isPlain: boolean } => {
    const isPlain = payload[at]! < 0x80;
    const length = integer(7);
    const start = at;
    at += length;
    return { start, end: at, isPlain };
  };
  if ((flags & flag.padded) !== 0) at += 1;
  if ((flags & flag.priority) !== 0) at += 5;
  while (at < payload.length) {
    const kind = payload[at]!;
    if (kind >= 0x80) integer(7);
    else if (kind >= 0x20 && kind < 0x40) integer(5);
    else {
      const name = integer(kind >= 0x40 ? 6 : 4);
      if (name === 0) text();
      const { start, end, isPlain } = text();
      if (name === authorityIndex && isPlain && end <= payload.length) mendAuthority(payload.subarray(start, end));
    }
  }
}

/** `:authority` in the static table (RFC 7541, appendix A). Java never codes a text as short as a path by Huffman. */
const authorityIndex = 1;

function mendAuthority(value: Buffer): void {
  for (const [at, byte] of value.entries()) {
    if (!/[A-Za-z0-9.:_~-]/.test(String.fromCharCode(byte))) value[at] = 0x2d;
  }
}
