import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { describeSpki, generateKey, keyTypeOfShape } from '../../src/crypto/algorithms.ts';
import { parseCertificate, splitCertificates } from '../../src/crypto/certificate.ts';
import { makeCsr } from '../../src/crypto/csr.ts';
import { decodeJwt } from '../../src/crypto/jwt.ts';
import { header, startPair } from '../support/pair.ts';

const typeOf = (spki: Buffer) => keyTypeOfShape(describeSpki(spki));

for (const [ca, jwt, workload, agent, alg] of [
  ['rsa-2048', 'ec-p384', 'rsa-2048', 'ec-p384', 'ES384'],
  ['ec-p384', 'rsa-2048', 'ec-p384', 'rsa-2048', 'RS256'],
  ['ml-dsa-65', 'ec-p256', 'ml-dsa-44', 'ml-dsa-87', 'ES256'],
] as const)
  test(`a ${ca} CA, ${jwt} JWT key, ${workload} workload key and ${agent} agent key work together, post-quantum required`, async (t) => {
    const tlsRequirePostQuantum = true;
    const experimentalMlDsa = ca === 'ml-dsa-65';
    const pair = await startPair(t, {
      server: { caKeyType: ca, jwtKeyType: jwt, tlsRequirePostQuantum, experimentalMlDsa },
      agent: { workloadKeyType: workload, agentKeyType: agent, tlsRequirePostQuantum, experimentalMlDsa },
    });
    await pair.admin.createEntry('/web');
    const stream = pair.workload.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata: header });
    const { value } = await stream.next();
    await stream.return?.();
    const [{ x509_svid, x509_svid_key, bundle }] = value.svids;
    const leaf = parseCertificate(splitCertificates(x509_svid)[0] as Buffer);
    const [root] = splitCertificates(bundle).map(parseCertificate);
    assert.equal(typeOf(leaf.spki), workload);
    assert.equal(typeOf(root!.spki), ca);
    // OpenSSL says so too.
    assert.ok(new X509Certificate(leaf.der).verify(createPublicKey({ key: root!.spki, format: 'der', type: 'spki' })));
    const own = createPublicKey(createPrivateKey({ key: x509_svid_key, format: 'der', type: 'pkcs8' }));
    assert.deepEqual(own.export({ format: 'der', type: 'spki' }), leaf.spki);
    const { svids } = await pair.workload.unary(
      'SpiffeWorkloadAPI',
      'FetchJWTSVID',
      { audience: ['db'] },
      { metadata: header },
    );
    assert.equal(decodeJwt(svids[0].svid).header.alg, alg);
    const answer = await pair.workload.unary(
      'SpiffeWorkloadAPI',
      'ValidateJWTSVID',
      { audience: 'db', svid: svids[0].svid },
      { metadata: header },
    );
    assert.equal(answer.spiffe_id, 'spiffe://example.org/web');
    const { agents } = await pair.admin.call('spire.api.server.agent.v1.Agent', 'ListAgents', {});
    assert.equal(agents.length, 1);
  });

test('a server that was not told to takes no request with a key of ML-DSA, and says what to do', async (t) => {
  const pair = await startPair(t);
  const { privateKey } = generateKey('ml-dsa-44');
  const csr = makeCsr(privateKey, { uri: 'spiffe://example.org/web' });
  await assert.rejects(
    pair.admin.call('spire.api.server.svid.v1.SVID', 'MintX509SVID', { csr }),
    /its key is of ML-DSA, which is experimental and not taken here.*experimental\.mlDsa/s,
  );
});
