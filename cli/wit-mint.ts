import { join, resolve } from 'node:path';
import { classicKeyTypeNames, classicKeyTypes, generateKey, jwtAlgorithms } from '../src/crypto/algorithms.ts';
import { privateJwk } from '../src/crypto/jwk.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import { requireWorkloadId, trustDomainOf } from '../src/spiffe/id.ts';
import { idToWire } from '../src/wire/id.ts';
import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { adminSocket, choice, id, output, required, seconds, text, withDefault } from './flags.ts';
import { jsonLine } from './json.ts';
import { inDirectory } from './write-svid.ts';

const algorithms = Object.keys(jwtAlgorithms) as (keyof typeof jwtAlgorithms)[];

export const witMint = command({
  summary: 'Have the server sign a WIT-SVID',
  about:
    'Makes a key here, has the server sign a token that is bound to it, and prints both. Whoever shows the token has to prove with the key that it is theirs.',
  flags: {
    spiffeId: required(id('SPIFFE-ID', 'Whose SVID it is')),
    ttl: seconds("How long it lives; the server's default otherwise"),
    keyType: withDefault(choice('TYPE', classicKeyTypeNames, 'What kind of key'), 'ec-p256'),
    signingAlgorithm: choice('ALG', algorithms, 'What the key signs proofs with; what its kind is used for otherwise'),
    write: text('DIR', 'Write token and key (a JSON Web Key, mode 0600) into this directory'),
    output,
    adminSocket,
  },
  examples: [['mutual wit mint --spiffe-id spiffe://example.org/batch --write ./wit', 'A token and its key as files']],
  async run(values, ports) {
    requireWorkloadId(values.spiffeId, trustDomainOf(values.spiffeId), 'SPIFFE ID');
    const { privateKey, publicKey } = generateKey(values.keyType);
    const algorithm = values.signingAlgorithm ?? classicKeyTypes[values.keyType].jwa;
    const { svid } = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('svid', 'MintWITSVID', {
        id: idToWire(values.spiffeId),
        public_key: publicKey.export({ format: 'der', type: 'spki' }),
        signing_algorithm: algorithm,
        ttl: values.ttl ?? 0,
      }),
    );
    const key = JSON.stringify(privateJwk(privateKey, algorithm));
    if (values.ttl !== undefined && Number(svid.expires_at) - Number(svid.issued_at) < values.ttl) {
      ports.err(
        `The SVID lives shorter than asked for, until ${printDeadline(Number(svid.expires_at), ports.clock.now())}.\n`,
      );
    }
    if (values.write !== undefined) {
      const directory = resolve(ports.directory, values.write);
      const files = [
        ['key', key],
        ['token', svid.token],
      ] as const;
      await inDirectory(directory, async () => {
        for (const [name, content] of files) await writeFileAtomic(join(directory, name), content, 0o600);
      });
      if (values.output === 'pretty') for (const [name] of files) ports.out(`Wrote ${join(directory, name)}\n`);
    } else if (values.output === 'pretty') {
      ports.out(`WIT-SVID:\n${svid.token}\n\nPrivate key:\n${key}\n`);
    }
    // A key that went into a file is not shown again.
    if (values.output === 'json')
      ports.out(jsonLine({ svid, ...(values.write === undefined && { private_key: key }) }));
    return 0;
  },
});
