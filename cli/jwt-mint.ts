import { basename, dirname, join, resolve } from 'node:path';
import { writeFileAtomic } from '../src/run/file.ts';
import { requireWorkloadId, trustDomainOf } from '../src/spiffe/id.ts';
import { idToWire } from '../src/wire/id.ts';
import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { adminSocket, id, many, output, required, seconds, text } from './flags.ts';
import { jsonLine } from './json.ts';
import { inDirectory } from './write-svid.ts';

export const jwtMint = command({
  summary: 'Have the server sign a JWT-SVID',
  flags: {
    spiffeId: required(id('SPIFFE-ID', 'Whose SVID it is')),
    audience: { ...many(text('AUDIENCE', 'Who it is meant for')), required: true },
    ttl: seconds("How long it lives; the server's default otherwise"),
    write: text('FILE', 'Write the token into this file, mode 0600'),
    output,
    adminSocket,
  },
  async run(values, ports) {
    requireWorkloadId(values.spiffeId, trustDomainOf(values.spiffeId), 'SPIFFE ID');
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('svid', 'MintJWTSVID', {
        id: idToWire(values.spiffeId),
        audience: values.audience,
        ttl: values.ttl ?? 0,
      }),
    );
    const { token, expires_at, issued_at } = response.svid;
    if (values.ttl !== undefined && Number(expires_at) - Number(issued_at) < values.ttl) {
      ports.err(
        `The SVID lives shorter than asked for, until ${printDeadline(Number(expires_at), ports.clock.now())}.\n`,
      );
    }
    if (values.write !== undefined) {
      const path = resolve(ports.directory, values.write);
      await inDirectory(dirname(path), () => writeFileAtomic(join(dirname(path), basename(path)), `${token}`, 0o600));
      if (values.output === 'pretty') ports.out(`Wrote ${path}\n`);
    } else if (values.output === 'pretty') {
      ports.out(`${token}\n`);
    }
    if (values.output === 'json') ports.out(jsonLine(response));
    return 0;
  },
});
