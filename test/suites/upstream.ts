/** What every upstream authority must do, run once for each. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { checkMinted } from '../../server/upstream/minted.ts';
import type { Upstream } from '../../server/upstream/upstream.ts';
import { generateKey } from '../../src/crypto/algorithms.ts';
import { authorityId, parseCertificate } from '../../src/crypto/certificate.ts';
import { name } from '../../src/crypto/certificate-writer.ts';
import { verifyChain } from '../../src/crypto/chain.ts';
import { makeCsr } from '../../src/crypto/csr.ts';
import type { LoadPackage } from '../../src/keys/load-package.ts';
import { trustDomainId } from '../../src/spiffe/id.ts';
import type { DrivenClock } from '../support/clock.ts';
import { td, testServer } from '../support/server.ts';

export interface UpstreamUnderTest {
  readonly upstream: Upstream;
  readonly clock: DrivenClock;
  /** Options of a server below it, by their flags' names. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** Where that server finds optional packages. */
  readonly load?: LoadPackage | undefined;
  /** Puts another root in the place of the one there is. */
  rotate(): Promise<void>;
  close(): Promise<void>;
}

const hour = 3_600_000;
const signal = new AbortController().signal;

export function upstreamSuite(title: string, make: (context: TestContext) => Promise<UpstreamUnderTest>): void {
  const claim = (what: string, body: (under: UpstreamUnderTest, context: TestContext) => Promise<void>): void => {
    test(`${title}: ${what}`, async (context) => {
      const under = await make(context);
      try {
        await body(under, context);
      } finally {
        await under.close();
      }
    });
  };
  async function mint({ upstream, clock }: UpstreamUnderTest, commonName = 'one') {
    const { privateKey, publicKey } = generateKey('ec-p256');
    const csr = makeCsr(privateKey, { uri: trustDomainId(td), subject: name([['CN', commonName]]) });
    const minted = await upstream.mint(csr, hour, signal);
    const spki = publicKey.export({ format: 'der', type: 'spki' });
    return { minted, path: checkMinted(minted, { spki, trustDomain: td }, clock.now()) };
  }

  claim('what it signs is a certificate authority of the key that asked, and leads to its roots', async (under) => {
    const { path } = await mint(under);
    assert.equal(path.certificate.isCa, true);
    assert.ok(path.notAfter > under.clock.now());
    assert.ok(path.certificate.notAfter <= under.clock.now() + hour, 'no longer than was asked for');
    const [one, two] = [path, (await mint(under, 'two')).path];
    assert.notEqual(one.certificate.serial, two.certificate.serial);
    assert.notDeepEqual(one.certificate.subject, two.certificate.subject);
  });

  claim('it tells the roots that its signatures lead to', async (under) => {
    if (under.upstream.state === undefined) return assert.equal(under.upstream.publish, undefined);
    const { x509Authorities } = await under.upstream.state(signal);
    const { path } = await mint(under);
    assert.ok(x509Authorities.some(({ certificate }) => certificate.equals(path.root.der)));
  });

  claim('bytes that are no request are refused', async ({ upstream }) => {
    await assert.rejects(async () => upstream.mint(Buffer.from('hello'), hour, signal));
  });

  claim('a server below it: SVIDs carry what lies below the root, the bundle the root', async (under, context) => {
    const server = await testServer(context, under);
    const { active } = await server.admin.call('localAuthority', 'GetX509AuthorityState');
    const bundle = await server.bundle();
    const roots = bundle.x509Authorities.map(({ certificate }) => parseCertificate(certificate));
    assert.ok(roots.some((root) => authorityId(root) === active.upstream_authority_subject_key_id));
    const { chain } = await server.mint('/workload');
    const [leaf, ...above] = chain.map((der) => parseCertificate(der));
    assert.equal(authorityId(above[0]!), active.authority_id);
    const path = verifyChain(leaf!, above, roots, under.clock.now());
    assert.equal(path.length, chain.length + 1, 'the chain is without the root');
    const refusal = await server.admin.refusal('localAuthority', 'TaintX509Authority', active);
    assert.match(refusal.message, /active/);
  });

  claim(
    'a new root reaches the bundle while the server runs, and the next authority leads to it',
    async (under, context) => {
      const server = await testServer(context, under);
      const state = () => server.admin.call('localAuthority', 'GetX509AuthorityState');
      const before = await server.bundle();
      const { active } = await state();
      await under.rotate();
      const { prepared_authority: prepared } = await server.admin.call('localAuthority', 'PrepareX509Authority');
      assert.notEqual(prepared.upstream_authority_subject_key_id, active.upstream_authority_subject_key_id);
      const after = await server.bundle();
      assert.equal(after.x509Authorities.length, before.x509Authorities.length + 1);
      await server.admin.call('localAuthority', 'ActivateX509Authority', { authority_id: prepared.authority_id });
      const { chain } = await server.mint('/workload');
      assert.equal(authorityId(parseCertificate(chain[1]!)), prepared.authority_id);
    },
  );

  claim(
    'its old root is taken back here, unless it is one that the server above takes back',
    async (under, context) => {
      const server = await testServer(context, under);
      const { active } = await server.admin.call('localAuthority', 'GetX509AuthorityState');
      await under.rotate();
      const rotation = (method: string, request: object) => server.admin.call('rotation', method, request);
      let state = await rotation('StartRotation', { mode: 'PLANNED', kinds: ['X509'] });
      const [{ old_root_id: old, new_root_id: next, root_stays }] = state.authorities;
      assert.equal(old, active.upstream_authority_subject_key_id);
      assert.notEqual(next, old);
      assert.equal(root_stays, under.upstream.publish !== undefined);
      for (let step = 0; step < 10 && state.step !== 'DONE'; step++)
        state = await rotation('AdvanceRotation', { id: state.id });
      assert.equal(state.step, 'DONE');
      const { x509Authorities } = await server.bundle();
      const ids = x509Authorities.map(({ certificate }) => authorityId(parseCertificate(certificate)));
      assert.equal(ids.includes(old), root_stays);
      const { message } = await server.admin.refusal('localAuthority', 'TaintX509UpstreamAuthority', {
        subject_key_id: old,
      });
      assert.match(message, root_stays ? /those of the server above/ : /no root with subject key ID/);
    },
  );
}
