import { generateKey, keyTypeNames } from '../src/crypto/algorithms.ts';
import { makeCsr } from '../src/crypto/csr.ts';
import { requireWorkloadId, trustDomainOf } from '../src/spiffe/id.ts';
import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { adminSocket, choice, dnsName, id, many, output, required, seconds, text, withDefault } from './flags.ts';
import { jsonLine } from './json.ts';
import { certificatesPem, keyPem, writeSvid } from './write-svid.ts';

export const x509Mint = command({
  summary: 'Have the server sign an X.509-SVID',
  about:
    'Makes a key here, has the server sign a certificate for any workload ID of its trust domain, and prints both. No entry is needed.',
  flags: {
    spiffeId: required(id('SPIFFE-ID', 'Whose SVID it is')),
    dns: many(dnsName('A DNS name; the first is the common name too', { also: ['dnsname'] })),
    ttl: seconds("How long it lives; the server's default otherwise"),
    keyType: withDefault(choice('TYPE', keyTypeNames, 'What kind of key'), 'ec-p256'),
    write: text('DIR', 'Write svid.pem, key.pem and bundle.pem into this directory'),
    output,
    adminSocket,
  },
  examples: [['mutual x509 mint --spiffe-id spiffe://example.org/batch --write ./certs', 'An SVID as files']],
  async run(values, ports) {
    requireWorkloadId(values.spiffeId, trustDomainOf(values.spiffeId), 'SPIFFE ID');
    const { privateKey } = generateKey(values.keyType);
    const csr = makeCsr(privateKey, { uri: values.spiffeId, dnsNames: values.dns });
    const [minted, bundle] = await withAdmin(values.adminSocket, ports, async (admin) => [
      await admin.call('svid', 'MintX509SVID', { csr, ttl: values.ttl ?? 0 }),
      await admin.call('bundle', 'GetBundle', {}),
    ]);
    const svid = {
      chain: minted.svid.cert_chain as Buffer[],
      key: privateKey.export({ format: 'der', type: 'pkcs8' }),
      roots: bundle.x509_authorities.map(({ asn1 }: { asn1: Buffer }) => asn1) as Buffer[],
    };
    const expires = Number(minted.svid.expires_at);
    if (values.ttl !== undefined && expires * 1000 + 60_000 < ports.clock.now() + values.ttl * 1000) {
      ports.err(
        `The SVID lives shorter than asked for, until ${printDeadline(expires, ports.clock.now())}: its issuer ends then.\n`,
      );
    }
    const written = values.write === undefined ? undefined : await writeSvid(values.write, svid, 0, ports);
    if (values.output === 'json') {
      // A key that went into a file is not shown again.
      ports.out(
        jsonLine({
          x509_svid: svid.chain,
          root_cas: svid.roots,
          ...(written === undefined && { private_key: svid.key }),
        }),
      );
    } else if (written !== undefined) {
      ports.out(written.map((path) => `Wrote ${path}\n`).join(''));
    } else {
      ports.out(
        `X509-SVID:\n${certificatesPem(svid.chain)}\nPrivate key:\n${keyPem(svid.key)}\nRoot CAs:\n${certificatesPem(svid.roots)}`,
      );
    }
    return 0;
  },
});
