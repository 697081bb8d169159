/** An OpenBao server for tests, in development mode with TLS, and its API as an operator uses it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type JsonAnswer, jsonClient } from '../../../src/keys/json-client.ts';
import { peerPath } from '../../../tools/peers.ts';
import { freePort, type Place } from './place.ts';
import { until } from './until.ts';

export interface OpenBao {
  readonly address: string;
  /** PEM file of the roots of its certificate. */
  readonly caFile: string;
  /** As root. Throws for anything but 2xx. */
  admin(method: string, path: string, body?: object, namespace?: string): Promise<Record<string, unknown>>;
  /** Sealed it answers 503 to everything; unsealing brings all back. */
  seal(): Promise<void>;
  unseal(): Promise<void>;
}

const rootToken = 'root-of-the-tests';

export async function startOpenBao(place: Place): Promise<OpenBao> {
  const port = await freePort();
  const dir = join(place.path('openbao', 'x'), '..');
  const address = `https://127.0.0.1:${port}`;
  const server = await place.start(
    'openbao',
    peerPath('openbao'),
    [
      'server',
      '-dev',
      '-dev-tls',
      `-dev-tls-cert-dir=${dir}`,
      `-dev-root-token-id=${rootToken}`,
      `-dev-listen-address=127.0.0.1:${port}`,
      '-dev-no-store-token',
    ],
    { env: { HOME: dir } },
  );
  const [, unsealKey = ''] = await server.line(/Unseal Key: (\S+)/, 60_000);
  const caFile = join(dir, readCaName(server.output()));
  const client = jsonClient(address, { ca: readFileSync(caFile, 'utf8') });
  const call = (method: string, path: string, body?: object, namespace?: string): Promise<JsonAnswer> =>
    client.call(method, `/v1/${path}`, {
      headers: {
        'x-vault-token': rootToken,
        'x-vault-request': 'true',
        ...(namespace !== undefined && { 'x-vault-namespace': namespace }),
      },
      body,
    });
  await until('OpenBao answers', 60_000, async () => (await call('GET', 'sys/health')).status === 200);
  return {
    address,
    caFile,
    async admin(method, path, body, namespace) {
      const { status, body: answer = {} } = await call(method, path, body, namespace);
      if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`);
      return answer;
    },
    async seal() {
      await call('POST', 'sys/seal');
    },
    async unseal() {
      await call('POST', 'sys/unseal', { key: unsealKey });
      await until('OpenBao is unsealed', 60_000, async () => (await call('GET', 'sys/health')).status === 200);
    },
  };
}

/** The file name of the roots, as the server tells it. */
function readCaName(output: string): string {
  return /([\w.-]*ca[\w.-]*\.pem)/.exec(output)?.[1] ?? 'vault-ca.pem';
}
