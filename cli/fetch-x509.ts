import { join, resolve } from 'node:path';
import { splitCertificates } from '../src/crypto/certificate.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import { command } from './command.ts';
import { output, text, timeout, toggle, workloadSocket } from './flags.ts';
import { jsonLine } from './json.ts';
import { bundleTable, svidTable } from './svid-text.ts';
import { count } from './table.ts';
import { svidParts, withWorkload } from './workload.ts';
import { certificatesPem, inDirectory, writeCrls, writeSvid } from './write-svid.ts';

export const fetchX509 = command({
  summary: 'Fetch the X.509-SVIDs of this process',
  about:
    'The agent looks at this very process: the identities are those of its user, groups and program. With --write, svid.pem, key.pem (0600), bundle.pem and crl.pem (what is revoked) are replaced, each at once; further SVIDs get svid.1.pem and so on, bundles of other trust domains bundle.NAME.pem.',
  flags: {
    write: text('DIR', 'Write the SVIDs into this directory'),
    silent: toggle('Print nothing when it works'),
    timeout,
    output,
    socket: workloadSocket,
  },
  examples: [['mutual fetch x509 --write ./certs', 'An SVID for a program that reads files']],
  async run(values, ports) {
    const response = await withWorkload(values.socket, ports, (workload) =>
      workload.first('FetchX509SVID', {}, values.timeout),
    );
    const written: string[] = [];
    if (values.write !== undefined) {
      const directory = values.write;
      for (const [index, svid] of response.svids.entries())
        written.push(...(await writeSvid(directory, svidParts(svid), index, ports)));
      for (const [id, der] of Object.entries<Buffer>(response.federated_bundles)) {
        const path = join(
          resolve(ports.directory, directory),
          `bundle.${id.replace(/^spiffe:\/\//, '').replace(/[^a-z0-9._-]/g, '_')}.pem`,
        );
        await inDirectory(resolve(ports.directory, directory), () =>
          writeFileAtomic(path, certificatesPem(splitCertificates(der)), 0o644),
        );
        written.push(path);
      }
      written.push(...(await writeCrls(directory, response.crl, ports)));
    }
    if (values.silent) return 0;
    if (values.output === 'json') {
      // Keys that went into files are not shown again.
      const svids =
        values.write === undefined
          ? response.svids
          : response.svids.map(({ x509_svid_key: _, ...svid }: { x509_svid_key: Buffer }) => svid);
      ports.out(jsonLine({ ...response, svids }));
      return 0;
    }
    ports.out(`Received ${count(response.svids.length, 'SVID', 'SVIDs')}\n\n${svidTable(response, ports)}`);
    if (Object.keys(response.federated_bundles).length > 0)
      ports.out(`\n${bundleTable(response.federated_bundles, ports)}`);
    if (written.length > 0) ports.out(`\n${written.map((path) => `Wrote ${path}\n`).join('')}`);
    return 0;
  },
});
