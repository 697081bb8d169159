/**
 * The steps of SPIRE's force-rotation-upstream-authority suite: an upstream authority in files is replaced, its old root
 * tainted and revoked, with our agent and the unmodified Go agent at once; by the Go command line, then again by ours.
 */
import assert from 'node:assert/strict';
import { readFileSync, renameSync } from 'node:fs';
import test, { after, before, describe } from 'node:test';
import { authorityId, parseCertificate } from '../../src/crypto/certificate.ts';
import { pemDecode } from '../../src/crypto/pem.ts';
import { forceX509Rotation } from './stories/force-rotation.ts';
import { mutual } from './support/mutual.ts';
import { operator } from './support/operator.ts';
import type { Make } from './support/pair.ts';
import { makePlace } from './support/place.ts';
import { runOk } from './support/program.ts';
import { makes, startTwoAgents, type TwoAgents } from './support/two-agents.ts';
import { until } from './support/until.ts';

const commands: readonly (readonly [Make, string])[] = [
  ['spire', 'spire-server upstreamauthority'],
  ['mutual', 'mutual upstream-authority'],
];
const req =
  'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -days 30 -subj /C=US/O=SPIFFE -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -addext subjectAltName=URI:spiffe://local';

describe('an upstream authority in files is rotated by force', () => {
  const place = makePlace();
  const [certFile, keyFile] = [place.path('upstream', 'ca.pem'), place.path('upstream', 'ca.key')];
  let two: TwoAgents;

  /** Puts a new root made by OpenSSL in the place of the one there is; gives its subject key id. */
  async function newRoot(): Promise<string> {
    await runOk('openssl', [...req.split(' '), '-keyout', `${keyFile}.new`, '-out', `${certFile}.new`]);
    for (const file of [keyFile, certFile]) renameSync(`${file}.new`, file);
    return authorityId(parseCertificate(pemDecode(readFileSync(certFile, 'utf8'), 'CERTIFICATE', 'the root')[0]!));
  }

  before(async () => {
    await newRoot();
    two = await startTwoAgents(place, { upstream: { authority: 'disk', disk: { certFile, keyFile } } });
  });
  after(() => place.close());

  for (const [make, command] of commands)
    test(`by ${command}: both agents and their workloads move below the new root, none is refused`, () =>
      forceX509Rotation(two, operator(two.server, make), newRoot));

  for (const mode of ['--planned', '--emergency'])
    test(`mutual authority rotate ${mode}, to another root: both agents are counted, the old root goes, none is refused`, async () => {
      const { active } = await operator(two.server, 'mutual').show('x509');
      const next = await newRoot();
      const args = ['authority', 'rotate', mode, '--only', 'x509', '--wait', '120s', '--output', 'json'];
      const { code, stdout, stderr } = await mutual([...args, '--admin-socket', two.server.adminSocket], {
        deadlineMs: 200_000,
      });
      assert.equal(code, 0, stderr);
      const state = JSON.parse(stdout.trim().split('\n').at(-1)!);
      const [{ old_root_id, new_root_id, revoked }] = state.authorities;
      assert.deepEqual([old_root_id, new_root_id, revoked], [active!.upstream_authority_subject_key_id, next, true]);
      assert.deepEqual([state.coverage.agents, state.coverage.covered, state.coverage.polling], [2, 2, 1]);
      for (const make of makes)
        await until(`the workload of ${make}`, 60_000, async () => (await two.fetch(make)).authorities.join() === next);
      await two.speakAgain();
      assert.deepEqual(two.handshakes().refused, []);
    });
});
