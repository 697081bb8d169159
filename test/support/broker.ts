/** A broker in a test: mutual TLS to an agent's broker endpoint with an SVID from its Workload API, and references. */
import { createPrivateKey } from 'node:crypto';
import type { TestContext } from 'node:test';
import { splitCertificates } from '../../src/crypto/certificate.ts';
import { type Channel, connectTls, type TlsTarget } from '../../src/rpc/connect.ts';
import { messageCodec } from '../../src/rpc/load.ts';
import type { Clock } from '../../src/run/clock.ts';
import { parseTrustDomain, type SpiffeId } from '../../src/spiffe/id.ts';
import { type Pair, header as workloadHeader } from './pair.ts';

export const service = 'spiffe.broker.API';
export const header = { 'broker.spiffe.io': 'true' };

const packed = (type: string, message: object) => ({
  reference: {
    reference: {
      type_url: `type.googleapis.com/spiffe.broker.${type}`,
      value: messageCodec(`spiffe.broker.${type}`).encode(message),
    },
  },
});
export const processReference = (pid: number) => packed('WorkloadPIDReference', { pid });
export const podReference = (more: object) =>
  packed('KubernetesObjectReference', { type: { plural: 'pods', group: 'core' }, ...more });

/** What a broker shows and trusts. */
export interface BrokerSvid {
  readonly chain: readonly Buffer[];
  readonly key: ReturnType<typeof createPrivateKey>;
  readonly bundle: readonly Buffer[];
}

export const svidOf = (pair: Pair, id: string): Promise<BrokerSvid> => svidFrom(pair.workload, id);

/** The SVID of this process with the given ID, from the Workload API. */
export async function svidFrom(workload: Channel, id: string): Promise<BrokerSvid> {
  const stream = workload.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata: workloadHeader });
  for await (const { svids } of stream) {
    const svid = svids.find(({ spiffe_id }: { spiffe_id: string }) => spiffe_id === id);
    if (svid === undefined) continue;
    return {
      chain: splitCertificates(svid.x509_svid),
      key: createPrivateKey({ key: svid.x509_svid_key, format: 'der', type: 'pkcs8' }),
      bundle: splitCertificates(svid.bundle),
    };
  }
  throw new Error(`no SVID for ${id} came`);
}

export interface Broker {
  readonly channel: Channel;
  fetch(request: object): Promise<any>;
  open(method: string, request: object): AsyncIterableIterator<any>;
}

/** Connects as a broker; closed when the test ends. */
export function connectBroker(
  test: TestContext,
  at: { path: string } | { host: string; port: number },
  expect: SpiffeId,
  svid: BrokerSvid | undefined,
  more: { readonly bundle?: readonly Buffer[]; readonly clock?: Clock } = {},
): Broker {
  const { bundle = svid?.bundle ?? [], clock } = more;
  const target: TlsTarget = {
    ...at,
    trustDomain: parseTrustDomain('example.org'),
    bundle: () => bundle,
    expect,
    svid: svid && (() => svid),
    ...(clock === undefined ? {} : { clock }),
  };
  const channel = connectTls(target);
  test.after(() => channel.close());
  return {
    channel,
    fetch: (request) => channel.unary(service, 'FetchJWTSVID', { audience: ['db'], ...request }, { metadata: header }),
    open: (method, request) => channel.stream(service, method, request, { metadata: header }),
  };
}
