/**
 * Authorities replaced on purpose, step by step as SPIRE's force-rotation suites do it: prepare, activate, taint, revoke,
 * and after each step what the server says, what both agents and their workloads hold, and whether the workloads still
 * speak to each other.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { authorityId, type Certificate, parseCertificate } from '../../../src/crypto/certificate.ts';
import { verifyChain } from '../../../src/crypto/chain.ts';
import { pemEncode } from '../../../src/crypto/pem.ts';
import type { Operator } from '../support/operator.ts';
import { workload } from '../support/pair.ts';
import { runOk } from '../support/program.ts';
import { makes, type TwoAgents } from '../support/two-agents.ts';
import { until } from '../support/until.ts';

/** Milliseconds for an agent to follow; Go's agent replaces tainted SVIDs every five seconds. */
const patience = 60_000;

const roots = async (two: TwoAgents): Promise<{ id: string; tainted: boolean; certificate: Certificate }[]> =>
  (await two.bundle()).x509_authorities.map(({ asn1, tainted }) => {
    const certificate = parseCertificate(Buffer.from(asn1, 'base64'));
    return { id: authorityId(certificate), tainted, certificate };
  });

/** Each workload has exactly these authorities in its bundle. */
async function everyBundle(two: TwoAgents, ids: readonly string[], what: string): Promise<void> {
  const wanted = [...ids].sort();
  for (const make of makes)
    await until(`${what}, below the agent of ${make}`, patience, async () => {
      const { authorities } = await two.fetch(make);
      return authorities.join() === wanted.join();
    });
}

/** OpenSSL finds a path from the leaf to this root alone. Throws when it does not. */
export async function opensslVerifies(dir: string, chain: readonly Certificate[], root: Certificate): Promise<void> {
  const file = (name: string, certificates: readonly Certificate[]): string => {
    const path = join(dir, name);
    writeFileSync(path, certificates.map(({ der }) => pemEncode('CERTIFICATE', der)).join(''));
    return path;
  };
  const [ca, all, leaf] = [file('ca.pem', [root]), file('chain.pem', chain), file('leaf.pem', chain.slice(0, 1))];
  await runOk('openssl', ['verify', '-CAfile', ca, '-untrusted', all, leaf]);
}

/**
 * An X.509 authority, self-signed or below an upstream one. The roots are what bundles hold: the authorities themselves,
 * or what they lead to; `moved` puts another upstream authority in place before the next authority is prepared.
 */
export async function forceX509Rotation(two: TwoAgents, by: Operator, moved?: () => Promise<string>): Promise<void> {
  const anchor = (one: { authority_id: string; upstream_authority_subject_key_id: string }): string =>
    moved ? one.upstream_authority_subject_key_id : one.authority_id;
  const first = (await by.show('x509')).active!;
  assert.deepEqual(
    (await roots(two)).map(({ id, tainted }) => [id, tainted]),
    [[anchor(first), false]],
    'one authority at the start',
  );
  await everyBundle(two, [anchor(first)], 'the first authority alone');
  const before = Object.fromEntries(
    await Promise.all(
      makes.map(async (make) => [make, { own: await two.agentSerial(make), svid: await two.fetch(make) }] as const),
    ),
  );

  const newRoot = await moved?.();
  const next = await by.prepare('x509');
  const prepared = await by.show('x509');
  assert.deepEqual([prepared.active, prepared.prepared, prepared.old ?? undefined], [first, next, undefined]);
  if (newRoot !== undefined) assert.equal(next.upstream_authority_subject_key_id, newRoot);
  const both = [anchor(first), anchor(next)];
  assert.deepEqual((await roots(two)).map(({ id }) => id).sort(), [...both].sort());
  await everyBundle(two, both, 'the prepared authority');

  await by.step('activate', 'x509', next.authority_id);
  const activated = await by.show('x509');
  assert.deepEqual([activated.active, activated.prepared ?? undefined, activated.old], [next, undefined, first]);
  for (const make of makes)
    assert.equal((await two.fetch(make)).serial, before[make]!.svid.serial, 'what the old one signed is still good');
  await two.speakAgain();

  if (moved) assert.equal(await by.root('taint', anchor(first)), anchor(first));
  else assert.equal((await by.step('taint', 'x509', first.authority_id)).authority_id, first.authority_id);
  const marked = await roots(two);
  assert.deepEqual(
    marked.filter(({ tainted }) => tainted).map(({ id }) => id),
    [anchor(first)],
  );
  const trusted = marked.find(({ tainted }) => !tainted)!.certificate;
  assert.equal(
    (await two.presented()).authorityKeyId!.toString('hex'),
    next.authority_id,
    'the server presents the new',
  );
  for (const make of makes) {
    await until(`the workload of ${make} has left the tainted authority`, patience, async () => {
      const { issuer } = await two.fetch(make);
      return issuer === next.authority_id;
    });
    const { chain, authorities } = await two.fetch(make);
    verifyChain(chain[0]!, chain.slice(1), [trusted], Date.now());
    await opensslVerifies(two.server.dir, chain, trusted);
    assert.deepEqual(authorities, [...both].sort(), 'a tainted authority is trusted until it is revoked');
    await until(`the agent of ${make} has left the tainted authority`, patience, async () => {
      return (await two.agentSerial(make)) !== before[make]!.own;
    });
  }
  await two.speakAgain();

  if (moved) assert.equal(await by.root('revoke', anchor(first)), anchor(first));
  else assert.equal((await by.step('revoke', 'x509', first.authority_id)).authority_id, first.authority_id);
  assert.deepEqual(
    (await roots(two)).map(({ id, tainted }) => [id, tainted]),
    [[anchor(next), false]],
    'the revoked one is gone',
  );
  const end = await by.show('x509');
  assert.deepEqual([end.active, end.old ?? undefined], [next, undefined]);
  await everyBundle(two, [anchor(next)], 'the new authority alone');
  await two.speakAgain();
  assert.deepEqual(two.handshakes().refused, [], 'no handshake failed');
}

const kidOf = (token: string): string => JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()).kid;

/** A JWT authority. */
export async function forceJwtRotation(two: TwoAgents, by: Operator): Promise<void> {
  const token = async (make: (typeof makes)[number]): Promise<string> =>
    (await workload(two.agents[make], 'jwt', ['-audience', 'rotation'])).svids[0].token;
  const keysAt = async (make: (typeof makes)[number]): Promise<string[]> =>
    (await workload(two.agents[make], 'bundles')).jwt['example.org'];
  const everyJwks = async (ids: readonly string[], what: string): Promise<void> => {
    for (const make of makes)
      await until(`${what}, at the agent of ${make}`, patience, async () => {
        return (await keysAt(make)).join() === [...ids].sort().join();
      });
  };
  const first = (await by.show('jwt')).active!;
  const keys = async () => (await two.bundle()).jwt_authorities.map(({ key_id, tainted }) => [key_id, tainted]);
  assert.deepEqual(await keys(), [[first.authority_id, false]]);
  await everyJwks([first.authority_id], 'the first key alone');

  const next = await by.prepare('jwt');
  const prepared = await by.show('jwt');
  assert.deepEqual([prepared.active, prepared.prepared, prepared.old ?? undefined], [first, next, undefined]);
  assert.deepEqual((await keys()).map(([id]) => id).sort(), [first.authority_id, next.authority_id].sort());
  await everyJwks([first.authority_id, next.authority_id], 'the prepared key');
  const early = {} as Record<string, string>;
  for (const make of makes) {
    early[make] = await token(make);
    assert.equal(kidOf(early[make]), first.authority_id, 'a prepared key signs nothing');
  }

  await by.step('activate', 'jwt', next.authority_id);
  const activated = await by.show('jwt');
  assert.deepEqual([activated.active, activated.prepared ?? undefined, activated.old], [next, undefined, first]);
  for (const make of makes) assert.equal(await token(make), early[make], 'kept tokens are good');

  assert.equal((await by.step('taint', 'jwt', first.authority_id)).authority_id, first.authority_id);
  assert.deepEqual(
    (await keys()).filter(([, tainted]) => tainted),
    [[first.authority_id, true]],
  );
  for (const make of makes) {
    await until(`tokens of ${make} are of the new key`, patience, async () => {
      return kidOf(await token(make)) === next.authority_id;
    });
    assert.notEqual(await token(make), early[make]);
    const args = ['-audience', 'rotation', '-token', early[make]!];
    assert.equal((await workload(two.agents[make], 'validate', args)).event, 'valid', 'good until it is revoked');
  }

  assert.equal((await by.step('revoke', 'jwt', first.authority_id)).authority_id, first.authority_id);
  assert.deepEqual(await keys(), [[next.authority_id, false]]);
  await everyJwks([next.authority_id], 'the new key alone');
  for (const make of makes) {
    const now = await token(make);
    assert.equal(kidOf(now), next.authority_id);
    const validate = (text: string) =>
      workload(two.agents[make], 'validate', ['-audience', 'rotation', '-token', text]);
    assert.equal((await validate(now)).event, 'valid');
    await assert.rejects(validate(early[make]!), /InvalidArgument/, 'what the revoked key signed is refused');
  }
}
