import { deepEqual, throws } from 'node:assert/strict';
import { suite, test } from 'node:test';
import { rewriteFlags } from '../../cli/argv.ts';
import type { Flags } from '../../cli/command.ts';
import { adminSocket, many, output, seconds, selector, text, toggle } from '../../cli/flags.ts';

const flags: Flags = {
  spiffeId: text('ID', ''),
  selector: many(selector('')),
  x509SvidTtl: seconds(''),
  jwtSvidIncludeJti: toggle(''),
  trustDomain: text('NAME', '', { also: ['id'] }),
  admin: toggle(''),
  expiresAt: text('TIME', '', { also: ['entryexpiry'] }),
  insecureBootstrap: { value: 'true|false', means: '', read: (given) => given, bare: true },
  output,
  adminSocket,
};

suite('rewriting flags', () => {
  for (const [given, wanted] of [
    ['--spiffe-id x', '--spiffe-id=x'],
    ['-spiffeID x', '--spiffe-id=x'],
    ['-spiffeID=x', '--spiffe-id=x'],
    ['--spiffeID x', '--spiffe-id=x'],
    ['-spiffeId x', '--spiffe-id=x'],
    ['-x509SVIDTTL 60', '--x509-svid-ttl=60'],
    ['-jwtSVIDIncludeJTI', '--jwt-svid-include-jti'],
    ['-admin', '--admin'],
    ['-admin=true -admin=T -admin=1', '--admin --admin --admin'],
    ['-admin=false -admin=0', ''],
    ['-insecureBootstrap', '--insecure-bootstrap=true'],
    ['-insecureBootstrap=false', '--insecure-bootstrap=false'],
    ['--insecure-bootstrap word', '--insecure-bootstrap=true word'],
    ['-id td', '--trust-domain=td'],
    ['-trustDomain td', '--trust-domain=td'],
    ['-entryExpiry 5', '--expires-at=5'],
    ['-socketPath /s', '--admin-socket=/s'],
    ['-output json', '--output=json'],
    ['-o json', '--output=json'],
    ['-h', '--help'],
    ['-help', '--help'],
    ['--help', '--help'],
    // Values are left alone, whatever they begin with.
    ['-selector -admin -selector --output', '--selector=-admin --selector=--output'],
    ['--spiffe-id=a=b', '--spiffe-id=a=b'],
    ['-spiffeID', '--spiffe-id'],
    // What is not known stays for the parser to refuse.
    ['-bogus x', '-bogus x'],
    ['--bogus=x', '--bogus=x'],
    ['-a', '-a'],
    ['-', '-'],
    ['word -admin', 'word --admin'],
    ['-- -spiffeID x', '-- -spiffeID x'],
  ] as const) {
    test(`${given} becomes ${wanted || 'nothing'}`, () => {
      deepEqual(rewriteFlags(given.split(' '), flags), wanted === '' ? [] : wanted.split(' '));
    });
  }

  test('an empty value stays one', () => deepEqual(rewriteFlags(['-spiffeID', ''], flags), ['--spiffe-id=']));

  test('a value for a switch that is neither true nor false is refused', () => {
    throws(() => rewriteFlags(['-admin=maybe'], flags), {
      code: 'usage/invalid',
      message: 'flag -admin takes no value but true or false, not "maybe"',
    });
  });
});
