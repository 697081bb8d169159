/** The fake server on a real port, and an agent's options to reach it. */
import { createPrivateKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { readAgentOptions } from '../../../agent/config.ts';
import { type Serving, serveTls } from '../../../src/rpc/serve.ts';
import { live } from '../../../src/run/live.ts';
import { printBundlePem } from '../../../src/spiffe/bundle-jwks.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import { secureContextOptions } from '../../../src/tls/credentials.ts';
import type { DrivenClock } from '../../support/clock.ts';
import type { FakeServer } from './fake-server.ts';

export interface ServedFake {
  readonly directory: string;
  readonly port: number;
  /** Options by their flags' names, over what every agent here needs. */
  options(flags?: Record<string, unknown>): ReturnType<typeof readAgentOptions>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

export async function serveFake(t: TestContext, server: FakeServer, clock: DrivenClock): Promise<ServedFake> {
  const directory = mkdtempSync(join(tmpdir(), 'mu-'));
  writeFileSync(join(directory, 'bundle.pem'), printBundlePem(server.authority.bundle()));
  const svid = server.authority.issue({
    id: 'spiffe://example.org/spire/server',
    notAfter: clock.now() + 30 * 86_400_000,
  });
  const key = createPrivateKey({ key: (svid.key as any).exportPkcs8(), format: 'der', type: 'pkcs8' });
  let serving: (Serving & { readonly port: number }) | undefined;
  let port = 0;
  const served: ServedFake = {
    directory,
    get port() {
      return port;
    },
    options: (flags = {}) =>
      readAgentOptions({
        flags: {
          trustDomain: 'example.org',
          server: `127.0.0.1:${port}`,
          dataDir: join(directory, 'agent'),
          ...(Object.keys(flags).some((flag) => /^trust(Bundle|Root)|^insecure/.test(flag))
            ? {}
            : { trustBundle: join(directory, 'bundle.pem') }),
          joinToken: 'the-token',
          ...flags,
        },
      }),
    async start() {
      serving = await serveTls({
        at: { host: '127.0.0.1', port },
        clock,
        context: live(secureContextOptions({ chain: svid.chain, key })),
        verifyClient: (chain) => verifyX509Svid(chain, server.authority.bundle(), clock.now()),
        services: server.services,
        guard: (call) => server.guard(call.method, call.caller),
      });
      port = serving.port;
    },
    async stop() {
      await serving?.close(0);
      serving = undefined;
    },
  };
  t.after(async () => {
    await served.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  await served.start();
  return served;
}
