/** What grpc-java sends on a Unix socket, byte by byte as version 1.80 does, and that it is served all the same. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { authorityMender, clientOf } from '../../../src/rpc/path-authority.ts';
import { type Call, serveUnix } from '../../../src/rpc/serve.ts';

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const type = { data: 0, headers: 1, reset: 3, settings: 4 } as const;

function frame(kind: number, flags: number, stream: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(kind, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

function settings(...values: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(values.length * 6);
  for (const [at, [id, value]] of values.entries()) {
    payload.writeUInt16BE(id, at * 6);
    payload.writeUInt32BE(value, at * 6 + 2);
  }
  return frame(type.settings, 0, 0, payload);
}

const javaBegins = Buffer.concat([preface, settings([2, 0], [3, 0], [4, 1 << 20], [6, 8192])]);
const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value, 'latin1')]);

/** A header block; `coding` is the byte before the value of `:authority`. */
function block(authority: string, coding: number): Buffer {
  return Buffer.concat([
    Buffer.from([coding]),
    text(authority),
    Buffer.from([0x44]),
    text('/SpiffeWorkloadAPI/FetchX509SVID'),
    Buffer.from([0x83, 0x86, 0x5f]),
    text('application/grpc'),
    Buffer.from([0x40]),
    text('te'),
    text('trailers'),
    Buffer.from([0x40]),
    text('workload.spiffe.io'),
    text('true'),
  ]);
}

const endHeaders = 4;
const endStream = 1;
const empty = frame(type.data, 1, 3, Buffer.alloc(5));
const asked = (authority: string, coding = 0x41): Buffer =>
  Buffer.concat([frame(type.headers, endHeaders, 3, block(authority, coding)), empty]);

test('only a client that begins as grpc-java does is taken for it, and nobody is judged too early', () => {
  for (let length = 0; length < javaBegins.length; length++)
    assert.equal(clientOf(javaBegins.subarray(0, length)), undefined, `${length} bytes`);
  assert.equal(clientOf(javaBegins), 'grpc-java');
  const others = {
    'grpc-go': Buffer.concat([preface, settings()]),
    'one that takes pushes': Buffer.concat([preface, settings([3, 100], [4, 0])]),
    'no settings first': Buffer.concat([preface, empty]),
    'settings of many kilobytes': Buffer.concat([preface, Buffer.from('ff0000040000000000', 'hex')]),
    'HTTP/1': Buffer.from('GET / HTTP/1.1\r\n'),
    'a TLS client': Buffer.from([0x16, 0x03, 0x01]),
  };
  for (const [name, begun] of Object.entries(others)) assert.equal(clientOf(begun), 'other', name);
});

test('a path becomes a legal authority of its length, and no other byte changes, however the bytes come', () => {
  const path = '/run/my sockets/\xe9/api.sock';
  const legal = '-run-my-sockets---api.sock';
  const priority = Buffer.from([0, 0, 0, 0, 15]);
  const frames = (authority: string): Buffer[] => [
    asked(authority),
    asked(authority, 0x01),
    asked(authority, 0x11),
    frame(
      type.headers,
      endHeaders | 0x28,
      5,
      Buffer.concat([Buffer.from([2]), priority, block(authority, 0x41), Buffer.alloc(2)]),
    ),
    // The size of the table first, a name by its text, and a value that looks like the field that is meant.
    frame(
      type.headers,
      endHeaders,
      7,
      Buffer.concat([
        Buffer.from([0x3f, 0xe1, 0x1f]),
        Buffer.from([0x40]),
        text('x'),
        text('A\x02//'),
        block(authority, 0x41),
      ]),
    ),
    frame(type.data, 0, 7, block('/not/headers', 0x41)),
  ];
  const sent = Buffer.concat([javaBegins, ...frames(path)]);
  const wanted = Buffer.concat([javaBegins, ...frames(legal)]);
  for (const size of [1, 2, 3, 7, 64, sent.length]) {
    const mend = authorityMender();
    const got: Buffer[] = [];
    for (let at = 0; at < sent.length; at += size)
      got.push(Buffer.from(mend(Buffer.from(sent.subarray(at, at + size)))));
    assert.deepEqual(Buffer.concat(got), wanted, `${size} bytes at a time`);
  }
});

test('headers that are broken in any byte are passed on at their length, for HTTP/2 to refuse', () => {
  const sent = asked('/run/api.sock');
  for (let at = 9; at < sent.length - empty.length; at++) {
    for (const byte of [0x00, 0x3f, 0x7f, 0xff]) {
      const broken = Buffer.concat([preface, sent]);
      broken[preface.length + at] = byte;
      assert.equal(authorityMender()(broken).length, broken.length);
    }
  }
});

/** The types of the frames that a server answers with on stream 3, to the one that ends it. */
async function answers(path: string, authority: string): Promise<number[]> {
  const socket = connect(path);
  const late = AbortSignal.timeout(60_000);
  late.addEventListener('abort', () => socket.destroy(new Error('no answer')));
  const frames: number[] = [];
  socket.write(javaBegins);
  let got = Buffer.alloc(0);
  let isAsked = false;
  for await (const chunk of socket) {
    got = Buffer.concat([got, chunk as Buffer]);
    while (got.length >= 9 && got.length >= 9 + got.readUIntBE(0, 3)) {
      const [kind, flags, stream] = [got[3]!, got[4]!, got.readUInt32BE(5)];
      got = got.subarray(9 + got.readUIntBE(0, 3));
      if (kind === type.settings && !isAsked) {
        isAsked = true;
        socket.write(asked(authority));
      }
      if (stream !== 3) continue;
      frames.push(kind);
      if (kind === type.reset || (flags & endStream) !== 0) return frames;
    }
  }
  return frames;
}

test('WE-2 a client that sends the path of the socket as authority is served, as the process that it is', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const calls: Call[] = [];
  const serving = await serveUnix({
    path,
    mode: 0o600,
    services: [{ name: 'SpiffeWorkloadAPI', methods: { FetchX509SVID: (_request, call) => void calls.push(call) } }],
  });
  try {
    for (const authority of [path, 'localhost']) {
      assert.ok(!(await answers(path, authority)).includes(type.reset), authority);
      const { caller } = calls.pop()!;
      assert.equal(caller.kind === 'unix' && caller.peer.pid, process.pid);
    }
  } finally {
    await serving.close(0);
  }
});

test('a connection that says nothing does not hold up the end of the server', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'mutual-')), 's');
  const serving = await serveUnix({ path, mode: 0o600, services: [] });
  const silent = connect(path);
  const half = connect(path);
  await Promise.all([once(silent, 'connect'), once(half, 'connect')]);
  for (const socket of [silent, half]) socket.on('error', () => {});
  half.write(javaBegins.subarray(0, 30));
  const ended = Promise.all(
    [silent, half].map((socket) => new Promise((resolve) => socket.resume().on('close', resolve))),
  );
  await serving.close(60_000);
  await ended;
});
