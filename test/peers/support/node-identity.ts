/** Keys and certificates of a node for x509pop, made by openssl: a CA and one certificate under it, as PEM files. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { runOk } from './program.ts';

/** Paths of PEM files. */
export interface NodeIdentity {
  readonly ca: string;
  readonly key: string;
  readonly certificate: string;
}

const newKey = '-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes';
const caExtensions = '-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign';
const extensions =
  'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n';

/** Makes the files in a folder. The serial number begins with a zero digit, which its selector keeps. */
export async function makeNodeIdentity(dir: string): Promise<NodeIdentity> {
  mkdirSync(dir, { recursive: true });
  const openssl = (words: string) => runOk('openssl', words.split(' '), { cwd: dir });
  await openssl(`req -x509 ${newKey} -keyout ca.key -out ca.pem -days 30 -subj /CN=node-ca ${caExtensions}`);
  await openssl(`req -new ${newKey} -keyout node.key -out node.csr -subj /CN=node-1`);
  writeFileSync(`${dir}/extensions`, extensions);
  const serial = '-set_serial 0x0123456789abcdef0123456789abcdef';
  await openssl(`x509 -req -in node.csr -CA ca.pem -CAkey ca.key ${serial} -out node.pem -days 30 -extfile extensions`);
  return { ca: `${dir}/ca.pem`, key: `${dir}/node.key`, certificate: `${dir}/node.pem` };
}
