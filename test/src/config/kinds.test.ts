import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as kinds from '../../../src/config/kinds.ts';
import { Fault } from '../../../src/errors.ts';

const good: [string, kinds.Kind<unknown>, string | string[], unknown][] = [
  ['a text', kinds.text, 'x y', 'x y'],
  ['a socket path', kinds.socketPath, '/run/api.sock', '/run/api.sock'],
  ['a relative socket path', kinds.socketPath, 'run/api.sock', 'run/api.sock'],
  ['WE-10 a unix URI', kinds.socketPath, 'unix:///run/api.sock', '/run/api.sock'],
  ['a short unix URI', kinds.socketPath, 'unix:api.sock', 'api.sock'],
  ['true', kinds.toggle, 'true', true],
  ['false', kinds.toggle, 'false', false],
  ['a number at its bound', kinds.count(-1, 10), '-1', -1],
  ['a duration', kinds.duration(0, 10_000), '9s', 9000],
  ['an address', kinds.hostPort(0), '127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
  ['a host name', kinds.hostPort(1), 'server.example:8081', { host: 'server.example', port: 8081 }],
  ['an IPv6 address', kinds.hostPort(1), '[::1]:65535', { host: '::1', port: 65535 }],
  ['a choice', kinds.choice('a', 'b'), 'b', 'b'],
  ['a mode', kinds.fileMode, '0770', 0o770],
  ['a mode of three digits', kinds.fileMode, '600', 0o600],
  ['a mode with 0o', kinds.fileMode, '0o640', 0o640],
  ['a trust domain', kinds.trustDomain, 'example.org', 'example.org'],
  ['a SPIFFE ID', kinds.spiffeId, 'spiffe://example.org/a', 'spiffe://example.org/a'],
  ['an https URL', kinds.httpsUrl, 'https://example.org/bundle?x=1', 'https://example.org/bundle?x=1'],
  ['a URL path', kinds.urlPath, '/live', '/live'],
  ['a SHA-256', kinds.sha256, `${'AB:'.repeat(31)}cd`, `${'ab'.repeat(31)}cd`],
  ['a list', kinds.listOf(kinds.count(0, 9)), ['1', '2'], [1, 2]],
  ['a list of one', kinds.listOf(kinds.text), 'x', ['x']],
];
for (const [what, kind, given, value] of good) {
  test(`reads ${what}, and prints it so that it reads the same`, () => {
    assert.deepEqual(kind.read(given), value);
    const printed = kind.print(value);
    assert.deepEqual(kind.read(kind.list ? printed.split(',') : printed), value);
  });
}

const bad: [string, kinds.Kind<unknown>, string | string[], RegExp][] = [
  ['an empty text', kinds.text, '', /is empty; give a value or leave it out/],
  ['a NUL', kinds.text, 'a\0b', /"a\\u0000b" is not a text without NUL/],
  ['a list for one value', kinds.text, ['a', 'b'], /is a list; give one value/],
  ['WE-9 a tcp socket', kinds.socketPath, 'tcp://127.0.0.1:8080', /"tcp:\/\/127.0.0.1:8080" is not a Unix socket/],
  ['a unix URI with a host', kinds.socketPath, 'unix://host/run/x', /is not a Unix socket/],
  ['an empty unix URI', kinds.socketPath, 'unix:', /is not a Unix socket/],
  ['yes', kinds.toggle, 'yes', /"yes" is not true or false/],
  ['TRUE', kinds.toggle, 'TRUE', /"TRUE" is not true or false/],
  ['a number past its bound', kinds.count(0, 5), '6', /"6" is not a whole number from 0 to 5/],
  ['a fraction', kinds.count(0, 5), '1.5', /"1.5" is not a whole number/],
  ['hex', kinds.count(0, 50), '0x10', /is not a whole number/],
  ['a duration without a unit', kinds.duration(0, 10_000), '9', /"9" is not a duration, .* such as 90s or 1h30m/],
  ['a duration past its bound', kinds.duration(1000, 10_000), '11s', /"11s" is not a duration from 1s to 10s/],
  ['an address without a port', kinds.hostPort(0), 'localhost', /"localhost" is not HOST:PORT, such as/],
  ['an address without a host', kinds.hostPort(0), ':80', /":80" is not HOST:PORT/],
  ['a URL for an address', kinds.hostPort(0), 'https://a:80', /is not HOST:PORT/],
  ['bare IPv6', kinds.hostPort(0), '::1:80', /is not HOST:PORT/],
  ['nonsense in brackets', kinds.hostPort(0), '[x]:80', /is not HOST:PORT/],
  ['port 65536', kinds.hostPort(0), 'a:65536', /with a port from 0 to 65535/],
  ['port 0 to connect to', kinds.hostPort(1), 'a:0', /with a port from 1 to 65535/],
  [
    'a near choice',
    kinds.choice('ec-p256', 'rsa-2048'),
    'ecp256',
    /is not one of ec-p256, rsa-2048; did you mean "ec-p256"\?/,
  ],
  ['a far choice', kinds.choice('disk', 'memory'), 'tape', /"tape" is not one of disk, memory$/],
  ['a mode of nine', kinds.fileMode, '0790', /is not a file mode of three octal digits/],
  [
    'ID-11 a trust domain with a slash',
    kinds.trustDomain,
    'a/b',
    /trust domain "a\/b" is not valid: it contains a "\/"/,
  ],
  ['an http URL', kinds.httpsUrl, 'http://example.org', /"http:\/\/example.org" is not an https URL/],
  ['a URL with a password', kinds.httpsUrl, 'https://u:p@example.org', /without a user name, a password/],
  ['a relative URL path', kinds.urlPath, 'live', /is not a path that begins with "\/"/],
  ['a short SHA-256', kinds.sha256, 'abcd', /is not a SHA-256 of 64 hex digits/],
  ['a bad item', kinds.listOf(kinds.count(0, 9)), ['1', 'x'], /"x" is not a whole number/],
  ['the same item twice', kinds.listOf(kinds.text), ['a', 'b', 'a'], /has "a" twice/],
  [
    'a list without end',
    kinds.listOf(kinds.text),
    Array.from({ length: 1001 }, String),
    /has 1001 items; at most 1000/,
  ],
];
for (const [what, kind, given, says] of bad) {
  test(`refuses ${what}, in words that say what is expected`, () => {
    assert.throws(
      () => kind.read(given),
      (error) => error instanceof Fault && says.test(error.message),
    );
  });
}

test('a hostile value is cut before it is quoted', () => {
  assert.throws(
    () => kinds.count(0, 5).read('9'.repeat(1_000_000)),
    (error) => error instanceof Fault && error.message.length < 250,
  );
});
