/** Keys and certificates of a node for x509pop, made by openssl: a CA and one certificate under it, as PEM files. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runOk } from './program.ts';

export interface NodeIdentity {
  readonly ca: string;
  readonly key: string;
  readonly certificate: string;
}

export async function makeNodeIdentity(dir: string): Promise<NodeIdentity> {
  mkdirSync(dir, { recursive: true });
  const at = (name: string) => join(dir, name);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await runOk('openssl', [
    'req',
    '-x509',
    ...key,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-days',
    '30',
    '-subj',
    '/CN=node CA',
    '-addext',
    'basicConstraints=critical,CA:TRUE',
    '-addext',
    'keyUsage=critical,keyCertSign',
  ]);
  await runOk('openssl', [
    'req',
    '-new',
    ...key,
    '-keyout',
    at('node.key'),
    '-out',
    at('node.csr'),
    '-subj',
    '/CN=node-1',
  ]);
  writeFileSync(
    at('ext'),
    'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n',
  );
  await runOk('openssl', [
    'x509',
    '-req',
    '-in',
    at('node.csr'),
    '-CA',
    at('ca.pem'),
    '-CAkey',
    at('ca.key'),
    '-CAcreateserial',
    '-out',
    at('node.pem'),
    '-days',
    '30',
    '-extfile',
    at('ext'),
  ]);
  return { ca: at('ca.pem'), key: at('node.key'), certificate: at('node.pem') };
}
