/**
 * Istio's conventions, kept by a real Envoy: the socket at workload-spiffe-uds/socket below its working directory, the
 * bootstrap and the TLS contexts as Istio's agent and control plane write them, its resource names and its shape of IDs.
 * And the service as other tools see it.
 */

import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import test, { after, before, describe } from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { ask, type Envoy, startEnvoy } from './support/envoy.ts';
import {
  type Agent,
  admin,
  createEntry,
  joinToken,
  type Server,
  startAgent,
  startServer,
  writeBundle,
} from './support/pair.ts';
import { freePort, makePlace } from './support/place.ts';
import { run } from './support/program.ts';
import { until } from './support/until.ts';

const id = 'spiffe://example.org/ns/shop/sa/cart';
const node = 'spiffe://example.org/node';
const who = `unix:uid:${process.getuid!()}`;
const http = 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager';
const typed = (name: string, fields: object = {}) => ({ '@type': `type.googleapis.com/${name}`, ...fields });

const fromSds = (name: string) => ({
  name,
  sds_config: {
    api_config_source: {
      api_type: 'GRPC',
      transport_api_version: 'V3',
      set_node_on_first_message_only: true,
      grpc_services: [{ envoy_grpc: { cluster_name: 'sds-grpc' } }],
    },
    initial_fetch_timeout: '0s',
    resource_api_version: 'V3',
  },
});
const tlsContext = (alpn: readonly string[], san: object) => ({
  tls_params: { tls_minimum_protocol_version: 'TLSv1_2', tls_maximum_protocol_version: 'TLSv1_3' },
  alpn_protocols: alpn,
  tls_certificate_sds_secret_configs: [fromSds('default')],
  combined_validation_context: {
    default_validation_context: { match_typed_subject_alt_names: [{ san_type: 'URI', matcher: san }] },
    validation_context_sds_secret_config: fromSds('ROOTCA'),
  },
});
const http2 = {
  'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': typed(
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
    { explicit_http_config: { http2_protocol_options: {} } },
  ),
};
const at = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } });
const endpoint = (name: string, address: object) => ({
  name,
  type: 'STATIC',
  connect_timeout: '1s',
  load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] },
});
const tlsOf = 'envoy.extensions.transport_sockets.tls.v3';

/** A sidecar whose program calls itself: out without TLS, in with Istio's mTLS. */
const sidecar = (ports: { inbound: number; outbound: number }) => ({
  node: {
    id: 'sidecar~10.0.0.7~cart-7d9c.shop~shop.svc.cluster.local',
    cluster: 'cart.shop',
    locality: {},
    metadata: {
      ISTIO_VERSION: '1.30.0',
      MESH_ID: 'example.org',
      NAMESPACE: 'shop',
      SERVICE_ACCOUNT: 'cart',
      PROXY_CONFIG: { configPath: './etc/istio/proxy', discoveryAddress: 'istiod.istio-system.svc:15012' },
      LABELS: Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`label-${n}`, 'x'.repeat(60)])),
    },
  },
  static_resources: {
    listeners: [
      {
        name: 'virtualInbound',
        address: at(ports.inbound),
        filter_chains: [
          {
            transport_socket: {
              name: 'envoy.transport_sockets.tls',
              typed_config: typed(`${tlsOf}.DownstreamTlsContext`, {
                require_client_certificate: true,
                common_tls_context: tlsContext(['istio-peer-exchange', 'h2', 'http/1.1'], {
                  prefix: 'spiffe://example.org/',
                }),
              }),
            },
            filters: [
              {
                name: 'envoy.filters.network.http_connection_manager',
                typed_config: typed(http, {
                  stat_prefix: 'inbound_0.0.0.0_8080',
                  route_config: {
                    virtual_hosts: [
                      {
                        name: 'inbound|http|8080',
                        domains: ['*'],
                        routes: [
                          {
                            match: { prefix: '/' },
                            direct_response: {
                              status: 200,
                              body_format: {
                                text_format_source: {
                                  inline_string: '%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN%',
                                },
                              },
                              body: { inline_string: 'cart' },
                            },
                          },
                        ],
                      },
                    ],
                  },
                  http_filters: [
                    {
                      name: 'envoy.filters.http.router',
                      typed_config: typed('envoy.extensions.filters.http.router.v3.Router'),
                    },
                  ],
                }),
              },
            ],
          },
        ],
      },
      {
        name: 'outbound',
        address: at(ports.outbound),
        filter_chains: [
          {
            filters: [
              {
                name: 'envoy.filters.network.tcp_proxy',
                typed_config: typed('envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy', {
                  stat_prefix: 'out',
                  cluster: 'outbound|80||cart.shop.svc.cluster.local',
                }),
              },
            ],
          },
        ],
      },
    ],
    clusters: [
      {
        ...endpoint('outbound|80||cart.shop.svc.cluster.local', at(ports.inbound)),
        transport_socket: {
          name: 'envoy.transport_sockets.tls',
          typed_config: typed(`${tlsOf}.UpstreamTlsContext`, {
            sni: 'outbound_.80_._.cart.shop.svc.cluster.local',
            common_tls_context: tlsContext(['istio'], { exact: id }),
          }),
        },
      },
      {
        ...endpoint('sds-grpc', { pipe: { path: './var/run/secrets/workload-spiffe-uds/socket' } }),
        typed_extension_protocol_options: http2,
      },
    ],
  },
});

describe('an Envoy as Istio starts it', () => {
  const place = makePlace();
  let [server, agent, envoy] = [{} as Server, {} as Agent, {} as Envoy];
  let entry = '';
  const ports = { inbound: 0, outbound: 0 };

  before(async () => {
    server = await startServer('mutual', place, 'server', { logLevel: 'WARN' });
    entry = await createEntry(server, id, node, [who]);
    agent = await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, node),
      socket: place.path('pod', 'var', 'run', 'secrets', 'workload-spiffe-uds', 'socket'),
      logLevel: 'INFO',
    });
    [ports.inbound, ports.outbound] = [await freePort(), await freePort()];
  });
  after(() => place.close());

  test('it gets its workload certificate from the socket, is let in by it, and takes a renewal', async () => {
    // YAML takes JSON, and what is added to it stands below.
    const bootstrap = Object.entries(sidecar(ports)).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
    envoy = await startEnvoy(place, 'envoy', bootstrap.join('\n'), { cwd: place.path('pod', '') });
    await until('the first request', 60_000, async () => (await ask(ports.outbound)) === `${id} ${id}`);
    const first = await envoy.versions();
    assert.deepEqual(Object.keys(first).sort(), ['ROOTCA', 'default']);
    await admin(
      ...[server, 'entry', 'update', '-entryID', entry, '-spiffeID', id, '-parentID', node],
      ...['-selector', who, '-x509SVIDTTL', '3001'],
    );
    await until('the renewal', 60_000, async () => (await envoy.versions()).default !== first.default);
    assert.equal(await ask(ports.outbound), `${id} ${id}`);
    assert.equal((await envoy.versions()).ROOTCA, first.ROOTCA);
    const stats = await envoy.admin('/stats?filter=sds.*update_rejected');
    assert.doesNotMatch(stats, /: [1-9]/);
    assert.doesNotMatch(agent.program().output(), /SDS client|stand for nothing/);
  });

  test('grpcurl finds the service by reflection and calls each of its methods', async () => {
    const service = 'envoy.service.secret.v3.SecretDiscoveryService';
    const call = async (method: string, request: object) => {
      const words = ['-plaintext', '-d', JSON.stringify(request), `unix://${agent.socket}`, `${service}/${method}`];
      const { code, stdout, stderr } = await run(peerPath('grpcurl'), words);
      assert.equal(code, 0, stderr);
      return JSON.parse(stdout);
    };
    const names = ['default', 'spiffe://example.org'];
    const pem = (text: string): string => Buffer.from(text, 'base64').toString();
    const fetched = await call('FetchSecrets', { resource_names: names });
    const streamed = await call('StreamSecrets', { resource_names: names });
    const changes = await call('DeltaSecrets', { resource_names_subscribe: [...names, 'nobody'] });
    assert.deepEqual(changes.removedResources, ['nobody']);
    assert.deepEqual(streamed.resources, fetched.resources);
    assert.equal(streamed.versionInfo, fetched.versionInfo);
    assert.deepEqual(
      changes.resources.map(({ resource }: { resource: object }) => resource),
      fetched.resources,
    );
    const [{ tlsCertificate }, { validationContext }] = fetched.resources;
    const leaf = new X509Certificate(pem(tlsCertificate.certificateChain.inlineBytes));
    const root = new X509Certificate(pem(validationContext.trustedCa.inlineBytes));
    assert.equal(leaf.subjectAltName, `URI:${id}`);
    assert.ok(leaf.verify(root.publicKey));
    assert.ok(leaf.checkPrivateKey(createPrivateKey(pem(tlsCertificate.privateKey.inlineBytes))));
  });
});
