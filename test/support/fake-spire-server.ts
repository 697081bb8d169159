/**
 * A fake: a SPIFFE server above ours, with its agent's Workload API, that signs and tells whatever a test wants. For what no
 * real server does. It checks what it is sent: the caller's SVID, and that a request is signed and names the trust domain.
 */
import { createPrivateKey } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { parseCsr } from '../../src/crypto/csr.ts';
import { Fault } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import { serveTls, serveUnix } from '../../src/rpc/serve.ts';
import type { Clock } from '../../src/run/clock.ts';
import { live } from '../../src/run/live.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { serverId, trustDomainId } from '../../src/spiffe/id.ts';
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import { secureContextOptions } from '../../src/tls/credentials.ts';
import { bundleToWire, type WireJwtKey } from '../../src/wire/bundle.ts';
import { type TestAuthority, testAuthority } from './ca.ts';
import { id, td } from './server.ts';

export interface FakeSpireServer {
  readonly root: TestAuthority;
  /** Options of a server below it, by their flags' names. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** The chain for a key that asks; a test may put another in its place. */
  sign: (spki: Buffer) => readonly Buffer[];
  /** What it tells of its bundle, likewise. */
  tells: () => Bundle;
  /** Every key it was asked to sign, DER. */
  readonly asked: readonly Buffer[];
  /** Every key of tokens it was given. */
  readonly published: readonly WireJwtKey[];
  /** The `kid`s of those that it has no more. */
  readonly revoked: Set<string>;
  /** Refuses every call with this, until it is undefined again. */
  refuses: Fault | undefined;
}

export async function fakeSpireServer(test: TestContext, clock: Clock): Promise<FakeSpireServer> {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-'));
  const root = testAuthority({ now: clock.now() });
  const socket = join(dir, 'api.sock');
  const asked: Buffer[] = [];
  const published: WireJwtKey[] = [];
  const day = 24 * 3_600_000;

  const workloadApi = await serveUnix({
    path: socket,
    mode: 0o700,
    clock,
    services: [
      {
        name: 'SpiffeWorkloadAPI',
        methods: {
          async FetchX509SVID(_: object, call: Call, send: (message: object) => Promise<void>) {
            if (call.metadata('workload.spiffe.io') !== 'true')
              throw new Fault('input/invalid', 'the header is missing');
            const svid = root.issue({ id: id('/nested'), notAfter: clock.now() + day });
            await send({
              svids: [
                {
                  spiffe_id: svid.id,
                  x509_svid: Buffer.concat(svid.chain),
                  x509_svid_key: svid.key!.exportPkcs8(),
                  bundle: root.der,
                },
              ],
            });
            await new Promise((resolve) => call.signal.addEventListener('abort', resolve, { once: true }));
          },
        },
      },
    ],
  });
  test.after(async () => {
    await workloadApi.close(0);
    await rm(dir, { recursive: true, force: true });
  });
  const own = root.issue({ id: serverId(td), notAfter: clock.now() + day });
  const key = { key: own.key!.exportPkcs8(), format: 'der', type: 'pkcs8' } as const;
  const serving = await serveTls({
    at: { host: '127.0.0.1', port: 0 },
    clock,
    context: live(secureContextOptions({ chain: own.chain, key: createPrivateKey(key) })),
    verifyClient: (chain) => verifyX509Svid(chain, root.bundle(), clock.now()),
    guard: async (call) => {
      if (call.caller.kind !== 'tls' || call.caller.svid?.id !== id('/nested'))
        throw new Fault('caller/denied', 'denied');
      if (fake.refuses) throw fake.refuses;
    },
    services: [
      {
        name: 'spire.api.server.svid.v1.SVID',
        methods: {
          NewDownstreamX509CA({ csr, preferred_ttl }: { csr: Buffer; preferred_ttl: number }) {
            const request = parseCsr(csr);
            if (!request.verifyAt('here')) throw new Fault('input/invalid', 'the request is not signed');
            if (request.uris.join() !== trustDomainId(td)) throw new Fault('input/invalid', `for ${request.uris}`);
            if (preferred_ttl <= 0) throw new Fault('input/invalid', 'no lifetime');
            asked.push(request.spki);
            return { ca_cert_chain: fake.sign(request.spki), x509_authorities: [] };
          },
        },
      },
      {
        name: 'spire.api.server.bundle.v1.Bundle',
        methods: {
          GetBundle: () => bundleToWire(fake.tells()),
          PublishJWTAuthority({ jwt_authority }: { jwt_authority: WireJwtKey }) {
            published.push(jwt_authority);
            const told = bundleToWire(fake.tells()).jwt_authorities ?? [];
            const isNew = ({ key_id }: WireJwtKey) =>
              !fake.revoked.has(key_id) && !told.some((one) => one.key_id === key_id);
            return { jwt_authorities: [...told, ...published.filter(isNew)] };
          },
        },
      },
    ],
  });
  test.after(() => serving.close(0));
  const fake: FakeSpireServer = {
    root,
    asked,
    published,
    revoked: new Set(),
    refuses: undefined,
    tells: () => root.bundle(),
    sign: (publicKey) => signed(root, publicKey, clock),
    flags: {
      'upstream-authority': 'spire',
      'upstream-spire-server': `127.0.0.1:${serving.port}`,
      'upstream-spire-workload-api-socket': socket,
    },
  };
  return fake;
}

/** An authority for a key, as it has to be, and those above it. */
export function signed(
  above: TestAuthority,
  publicKey: Buffer,
  clock: Clock,
  wishes: Parameters<TestAuthority['issue']>[0] = {},
): readonly Buffer[] {
  return above.issue({ ca: true, id: trustDomainId(td), notAfter: clock.now() + 20 * 3_600_000, publicKey, ...wishes })
    .chain;
}
