import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { test } from 'node:test';
import { describeSpki, keyTypeOfShape } from '../../src/crypto/algorithms.ts';
import { parseCertificate, splitCertificates } from '../../src/crypto/certificate.ts';
import { decodeJwt } from '../../src/crypto/jwt.ts';
import { header, startPair } from '../support/pair.ts';

const typeOf = (spki: Buffer) => keyTypeOfShape(describeSpki(spki));

for (const [ca, jwt, workload, agent, alg] of [
  ['rsa-2048', 'ec-p384', 'rsa-2048', 'ec-p384', 'ES384'],
  ['ec-p384', 'rsa-2048', 'ec-p384', 'rsa-2048', 'RS256'],
] as const)
  test(`a ${ca} CA, ${jwt} JWT key, ${workload} workload key and ${agent} agent key work together, post-quantum required`, async (t) => {
    const tlsRequirePostQuantum = true;
    const pair = await startPair(t, {
      server: { caKeyType: ca, jwtKeyType: jwt, tlsRequirePostQuantum },
      agent: { workloadKeyType: workload, agentKeyType: agent, tlsRequirePostQuantum },
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
