/**
 * A Fulcio, a certificate log and a Rekor of the test's own (@sigstore/mock), and a signer that has them sign real material:
 * certificates, SCTs, log entries with inclusion proofs, DSSE envelopes. Nothing is sent anywhere. Wrong is only what a test
 * asks to be.
 */
import { createHash, generateKeyPairSync, type KeyPairKeyObjectResult, sign } from 'node:crypto';
import { loadPackage } from '../../../src/keys/load-package.ts';

export interface FakeSigstore {
  /** The trusted_root.json. */
  readonly trustedRoot: object;
  /** A bundle about an image, as cosign writes it. */
  sign(digest: string, wishes?: SignWishes): Promise<any>;
}

export interface SignWishes {
  readonly subject?: string;
  readonly issuer?: string;
  readonly predicateType?: string;
  readonly payloadType?: string;
  /** Whole subjects of the statement, in the place of the image. */
  readonly subjects?: readonly object[];
}

const pair = (): KeyPairKeyObjectResult => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const spki = ({ publicKey }: KeyPairKeyObjectResult): Uint8Array<ArrayBuffer> =>
  new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
const base64 = (bytes: ArrayBufferView | ArrayBuffer | Buffer): string =>
  (ArrayBuffer.isView(bytes)
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : Buffer.from(bytes)
  ).toString('base64');
const issuerExtension = '1.3.6.1.4.1.57264.1.8';

export async function fakeSigstore(): Promise<FakeSigstore> {
  // By name, as the agent loads the packages that verify: a checkout without them passes every other test.
  const { initializeCA, initializeCTLog, initializeTLog } = await loadPackage('@sigstore/mock');
  const ctlog = await initializeCTLog(pair());
  const ca = await initializeCA(pair(), ctlog);
  const tlog = await initializeTLog('https://rekor.test', pair());
  const long = { start: '2020-01-01T00:00:00Z' };
  const log = (baseUrl: string, key: Buffer, id: string) => ({
    baseUrl,
    hashAlgorithm: 'SHA2_256',
    publicKey: { rawBytes: base64(key), keyDetails: 'PKIX_ECDSA_P256_SHA_256', validFor: long },
    logId: { keyId: id },
  });
  const logId = createHash('sha256').update(tlog.publicKey).digest('base64');
  return {
    trustedRoot: {
      mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
      tlogs: [log('https://rekor.test', tlog.publicKey, logId)],
      certificateAuthorities: [
        {
          subject: { organization: 'test', commonName: 'fulcio' },
          uri: 'https://fulcio.test',
          certChain: { certificates: [{ rawBytes: base64(ca.rootCertificate) }] },
          validFor: long,
        },
      ],
      ctlogs: [log('https://ct.test', ctlog.publicKey, base64(ctlog.logID))],
      timestampAuthorities: [],
    },
    async sign(digest, wishes = {}) {
      const { subject = 'https://github.com/acme/web/.github/workflows/release.yaml@refs/heads/main' } = wishes;
      const { issuer = 'https://token.actions.githubusercontent.com' } = wishes;
      const key = pair();
      const certificate = await ca.issueCertificate({
        publicKey: spki(key),
        subjectAltName: subject,
        extensions: [{ oid: issuerExtension, value: issuer }],
      });
      const statement = {
        _type: 'https://in-toto.io/Statement/v1',
        subject: wishes.subjects ?? [{ name: '', digest: { sha256: digest.replace('sha256:', '') } }],
        predicateType: wishes.predicateType ?? 'https://sigstore.dev/cosign/sign/v1',
        predicate: {},
      };
      const payload = Buffer.from(JSON.stringify(statement));
      const { payloadType = 'application/vnd.in-toto+json' } = wishes;
      const encoded = Buffer.concat([
        Buffer.from(`DSSEv1 ${Buffer.byteLength(payloadType)} ${payloadType} ${payload.length} `),
        payload,
      ]);
      const sig = sign('sha256', encoded, key.privateKey).toString('base64');
      const pem = `-----BEGIN CERTIFICATE-----\n${base64(certificate)}\n-----END CERTIFICATE-----\n`;
      const answer = await tlog.log({
        apiVersion: '0.0.1',
        kind: 'dsse',
        spec: {
          envelopeHash: { algorithm: 'sha256', value: createHash('sha256').update(payload).digest('hex') },
          payloadHash: { algorithm: 'sha256', value: createHash('sha256').update(payload).digest('hex') },
          signatures: [{ signature: sig, verifier: Buffer.from(pem).toString('base64') }],
        },
      });
      const entry: any = Object.values(answer)[0];
      const { inclusionProof, signedEntryTimestamp } = entry.verification;
      return {
        mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
        verificationMaterial: {
          certificate: { rawBytes: base64(certificate) },
          tlogEntries: [
            {
              logIndex: String(entry.logIndex),
              logId: { keyId: Buffer.from(entry.logID, 'hex').toString('base64') },
              kindVersion: { kind: 'dsse', version: '0.0.1' },
              integratedTime: String(entry.integratedTime),
              inclusionPromise: { signedEntryTimestamp },
              inclusionProof: {
                logIndex: String(inclusionProof.logIndex),
                rootHash: Buffer.from(inclusionProof.rootHash, 'hex').toString('base64'),
                treeSize: String(inclusionProof.treeSize),
                hashes: inclusionProof.hashes,
                checkpoint: { envelope: inclusionProof.checkpoint },
              },
              canonicalizedBody: entry.body,
            },
          ],
        },
        dsseEnvelope: { payload: payload.toString('base64'), payloadType, signatures: [{ sig, keyid: '' }] },
      };
    },
  };
}
