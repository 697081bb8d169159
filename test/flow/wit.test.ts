/** WIT-SVIDs from an entry to a verifier, over a real server and a real agent; and their authority's whole rotation. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { jwkSigner } from '../../src/crypto/jwk-signer.ts';
import { decodeJwt } from '../../src/crypto/jwt.ts';
import { Fault, Status } from '../../src/errors.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { parseBundle } from '../../src/spiffe/bundle-jwks.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { makeWitProof } from '../../src/spiffe/wit-proof.ts';
import { verifyWitSvid } from '../../src/spiffe/wit-svid.ts';
import { header, type Pair, startPair } from '../support/pair.ts';

const enabled = { witSvidsEnabled: true };
const localAuthority = 'spire.api.server.localauthority.v1.LocalAuthority';

interface Wit {
  spiffe_id: string;
  wit_svid: string;
  wit_svid_key: string;
}

function streamOf<T>(t: TestContext, { workload }: Pair, method: string) {
  const stream = workload.stream('SpiffeWorkloadAPI', method, {}, { metadata: header });
  t.after(() => stream.return?.());
  return async (): Promise<T> => (await stream.next()).value;
}

/** The bundle that a workload gets, as a verifier holds it. */
function bundleOf({ bundles }: { bundles: Record<string, string> }): Bundle {
  const { keys } = JSON.parse(bundles['spiffe://example.org']!);
  const named = keys.map((key: object) => ({ ...key, use: 'wit-svid' }));
  return parseBundle(JSON.stringify({ keys: named }), parseTrustDomain('example.org'));
}

const kids = ({ witAuthorities }: Bundle) => witAuthorities.map(({ keyId }) => keyId);

/** Verifies with a proof made by the workload's own key. */
async function isValid({ wit_svid, wit_svid_key }: Wit, bundle: Bundle, now: number): Promise<void> {
  const proof = makeWitProof(wit_svid, jwkSigner(wit_svid_key), 'db', 'one', now);
  const verified = await verifyWitSvid(wit_svid, () => bundle, now, { token: proof, audience: 'db' });
  assert.equal(verified.id, 'spiffe://example.org/web');
}

test('an entry becomes a token that a verifier with the bundle believes, and every step of the authority reaches both', async (t) => {
  const p = await startPair(t, { server: enabled, agent: enabled });
  await p.admin.createEntry('/web');
  const nextSvids = streamOf<{ svids: Wit[] }>(t, p, 'FetchWITSVID');
  const nextBundles = streamOf<{ bundles: Record<string, string> }>(t, p, 'FetchWITBundles');
  const call = (verb: string, authority_id?: string) =>
    p.admin.call(localAuthority, `${verb}WITAuthority`, authority_id === undefined ? {} : { authority_id });

  const [one] = (await p.pass(nextSvids())).svids as [Wit];
  const before = bundleOf(await p.pass(nextBundles()));
  const [old] = kids(before) as [string];
  assert.equal(decodeJwt(one.wit_svid).header.kid, old);
  await isValid(one, before, p.clock.now());

  const next: string = (await call('Prepare')).prepared_authority.authority_id;
  assert.deepEqual(kids(bundleOf(await p.pass(nextBundles()))), [old, next]);
  await call('Activate', next);
  await call('Taint', old);
  const [other] = (await p.pass(nextSvids())).svids as [Wit];
  assert.equal(decodeJwt(other.wit_svid).header.kid, next);
  await call('Revoke', old);
  let after = bundleOf(await p.pass(nextBundles()));
  while (kids(after).includes(old)) after = bundleOf(await p.pass(nextBundles()));
  await isValid(other, after, p.clock.now());
  await assert.rejects(isValid(one, after, p.clock.now()), (fault: Fault) => /has no WIT key/.test(fault.message));
});

test('rotation of all servers counts the agents that hold the new WIT key and serve nothing of the old one', async (t) => {
  const p = await startPair(t, { server: enabled, agent: enabled });
  await p.admin.createEntry('/web');
  const nextSvids = streamOf<{ svids: Wit[] }>(t, p, 'FetchWITSVID');
  const [one] = (await p.pass(nextSvids())).svids as [Wit];
  const rotate = (method: string, request: object) => p.admin.call('mutual.server.v1.Rotation', method, request);
  let state = await rotate('StartRotation', { mode: 'PLANNED', kinds: ['WIT'] });
  assert.deepEqual(
    state.authorities.map(({ kind, old_authority_id }: { kind: string; old_authority_id: string }) => [
      kind,
      old_authority_id,
    ]),
    [['WIT', decodeJwt(one.wit_svid).header.kid]],
  );
  for (let step = 0; state.step !== 'DONE'; step++) {
    assert.ok(step < 200, `stands at ${state.step}: ${state.waiting_for}`);
    state = await p.pass(rotate('AdvanceRotation', { id: state.id }));
  }
  assert.deepEqual([state.coverage.agents, state.coverage.covered], [1, 1]);
  const [other] = (await p.pass(nextSvids())).svids as [Wit];
  assert.equal(decodeJwt(other.wit_svid).header.kid, state.authorities[0].new_authority_id);
});

test('WA-2 WA-3 an agent that offers them below a server that does not says so, and so does one that does not', async (t) => {
  for (const options of [{ agent: enabled }, { server: enabled }]) {
    const p = await startPair(t, options);
    await p.admin.createEntry('/web');
    for (const method of ['FetchWITSVID', 'FetchWITBundles'])
      await assert.rejects(
        p.workload.stream('SpiffeWorkloadAPI', method, {}, { metadata: header }).next(),
        (fault: Fault) => fault instanceof Fault && fault.status === Status.UNIMPLEMENTED,
      );
    await p.stopAgent();
    await p.stopServer();
  }
});

test('a restart of the server keeps the WIT authority', async (t) => {
  const p = await startPair(t, { server: enabled, agent: enabled });
  await p.admin.createEntry('/web');
  const nextSvids = streamOf<{ svids: Wit[] }>(t, p, 'FetchWITSVID');
  const { kid } = decodeJwt((await p.pass(nextSvids())).svids[0]!.wit_svid).header;
  await p.stopServer();
  await p.startServer();
  const { active } = await p.admin.call(localAuthority, 'GetWITAuthorityState', {});
  assert.equal(active.authority_id, kid);
});
