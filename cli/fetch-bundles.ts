import { join, resolve } from 'node:path';
import { splitCertificates } from '../src/crypto/certificate.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import { command } from './command.ts';
import { choice, output, text, timeout, withDefault, workloadSocket } from './flags.ts';
import { jsonLine } from './json.ts';
import { bundleTable } from './svid-text.ts';
import { withWorkload } from './workload.ts';
import { certificatesPem, inDirectory } from './write-svid.ts';

const methods = { x509: 'FetchX509Bundles', jwt: 'FetchJWTBundles', wit: 'FetchWITBundles' } as const;

export const fetchBundles = command({
  summary: 'Fetch the bundles this process may trust',
  about:
    'X.509 authorities as a table, as PEM files with --write, or as JSON; with --kind jwt or wit the JSON Web Key Sets, a line for each trust domain.',
  flags: {
    kind: withDefault(
      choice('KIND', ['x509', 'jwt', 'wit'], 'Certificates, keys for JWT-SVIDs, or keys for WIT-SVIDs'),
      'x509',
    ),
    write: text('DIR', 'Write bundle.NAME.pem, or bundle.NAME.jwks, for each trust domain into this directory'),
    timeout,
    output,
    socket: workloadSocket,
  },
  async run(values, ports) {
    const method = methods[values.kind];
    const response = await withWorkload(values.socket, ports, (workload) => workload.first(method, {}, values.timeout));
    const bundles: [string, Buffer][] = Object.entries<Buffer | string>(response.bundles).map(([id, bundle]) => [
      id,
      Buffer.from(bundle as string),
    ]);
    if (values.write !== undefined) {
      const directory = resolve(ports.directory, values.write);
      await inDirectory(directory, async () => {
        for (const [id, bytes] of bundles) {
          const name = id.replace(/^spiffe:\/\//, '').replace(/[^a-z0-9._-]/g, '_');
          const path = join(directory, `bundle.${name}.${values.kind === 'x509' ? 'pem' : 'jwks'}`);
          await writeFileAtomic(
            path,
            values.kind === 'x509' ? certificatesPem(splitCertificates(bytes)) : bytes,
            0o644,
          );
          if (values.output === 'pretty') ports.out(`Wrote ${path}\n`);
        }
      });
    }
    if (values.output === 'json') ports.out(jsonLine(response));
    else if (values.write !== undefined) return 0;
    else if (values.kind === 'x509') ports.out(bundleTable(response.bundles, ports));
    else for (const [id, bytes] of bundles) ports.out(`${id} ${bytes.toString('utf8').replace(/\s*\n\s*/g, '')}\n`);
    return 0;
  },
});
