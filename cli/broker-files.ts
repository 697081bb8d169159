/**
 * The SVIDs of one workload as files in a folder of its own: nothing of one workload is ever seen by another. What a newer
 * message does not hold is removed, and everything when the workload is gone.
 */
import { rm, rmdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { splitCertificates } from '../src/crypto/certificate.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import type { Message } from './caller.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { svidParts } from './workload.ts';
import { certificatesPem, inDirectory, writeCrls, writeSvid } from './write-svid.ts';

export interface WorkloadFiles {
  /** Gives the paths written. */
  write(message: Message): Promise<readonly string[]>;
  erase(): Promise<void>;
}

export function workloadFiles(directory: string, ports: Ports): WorkloadFiles {
  const folder = resolve(ports.directory, directory);
  let held: ReadonlySet<string> = new Set();
  const removeBut = async (keep: ReadonlySet<string>): Promise<void> => {
    for (const path of held) if (!keep.has(path)) await rm(path, { force: true });
    held = keep;
  };
  return {
    async write({ svids, federated_bundles, crl }) {
      const written: string[] = [];
      const identities: object[] = [];
      for (const [index, svid] of svids.entries()) {
        const [svidPath, keyPath, bundlePath] = await writeSvid(folder, svidParts(svid), index, ports);
        written.push(svidPath!, keyPath!, bundlePath!);
        const { spiffe_id, hint } = svid;
        identities.push({ spiffe_id, hint, svid: basename(svidPath!), key: basename(keyPath!) });
      }
      for (const [id, der] of Object.entries<Buffer>(federated_bundles)) {
        const path = join(folder, `bundle.${id.slice('spiffe://'.length).replace(/[^a-z0-9._-]/g, '_')}.pem`);
        await inDirectory(folder, () => writeFileAtomic(path, certificatesPem(splitCertificates(der)), 0o644));
        written.push(path);
      }
      written.push(...(await writeCrls(folder, crl, ports)));
      // Which file is which identity, by hint: a workload with several chooses by it (SPIFFE Broker API §5.3).
      const index = join(folder, 'identities.json');
      await inDirectory(folder, () => writeFileAtomic(index, jsonLine(identities), 0o644));
      written.push(index);
      await removeBut(new Set(written));
      return written;
    },
    async erase() {
      await removeBut(new Set());
      // Whatever somebody else has put there stays.
      await rmdir(folder).catch(() => {});
    },
  };
}
