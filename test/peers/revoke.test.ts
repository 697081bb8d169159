/**
 * One stolen identity taken back while its thief uses it: nginx with the list as a file, Envoy with the list over SDS, a
 * go-spiffe server that looks into the list with Go's own crypto/x509 (go-spiffe knows none), our own verifier and OpenSSL.
 * Each lets it in before, and refuses it after; the workload that was robbed has another SVID and is served.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { after, before, describe } from 'node:test';
import { connect } from 'node:tls';
import { splitCertificates } from '../../src/crypto/certificate.ts';
import { parseCrl } from '../../src/crypto/crl.ts';
import { pemDecode } from '../../src/crypto/pem.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { revokedBy } from '../../src/spiffe/revocation.ts';
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts';
import { peerPath } from '../../tools/peers.ts';
import { startEnvoy } from './support/envoy.ts';
import { mutual } from './support/mutual.ts';
import {
  type Agent,
  createEntry,
  joinToken,
  type Server,
  startAgent,
  startServer,
  writeBundle,
} from './support/pair.ts';
import { freePort, makePlace } from './support/place.ts';
import type { Program } from './support/program.ts';
import { run } from './support/program.ts';
import { until } from './support/until.ts';

const me = `unix:uid:${process.getuid!()}`;
const parent = 'spiffe://example.org/node';

interface Held {
  readonly cert: string;
  readonly key: string;
}

/** One request with a client certificate: the status line, or what the other side said in refusing. */
function request(port: number, { cert, key }: Held): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', cert, key, rejectUnauthorized: false, servername: 'web' });
    let text = '';
    socket.on('secureConnect', () => socket.write('GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n'));
    socket.setEncoding('utf8').on('data', (data: string) => (text += data));
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(`refused: ${error.code ?? error.message}`));
    socket.on('close', () => resolve(text === '' ? 'refused: closed' : text));
    socket.setTimeout(5_000, () => socket.destroy());
  });
}

describe('an SVID is revoked while it is used', () => {
  const place = makePlace();
  const ports = { nginx: 0, envoy: 0, go: 0 };
  const directory = join(place.dir, 'certs');
  let [server, agent] = [{} as Server, {} as Agent];
  let [nginx, go] = [{} as Program, {} as Program];
  let stolen = {} as Held;
  /** Which of the files that were written is whose. */
  const fetched = async (path: string): Promise<Held> => {
    const { stdout } = await mutual([
      'fetch',
      'x509',
      '--write',
      directory,
      '--output',
      'json',
      '--socket',
      agent.socket,
    ]);
    const { svids } = JSON.parse(stdout) as { svids: { spiffe_id: string }[] };
    const at = svids.findIndex(({ spiffe_id }) => spiffe_id === `spiffe://example.org${path}`);
    assert.ok(at >= 0, stdout);
    const read = (name: string) =>
      readFileSync(join(directory, at === 0 ? `${name}.pem` : `${name}.${at}.pem`), 'utf8');
    return { cert: read('svid'), key: read('key') };
  };

  before(async () => {
    server = await startServer('mutual', place, 'server', { logLevel: 'INFO' });
    agent = await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, parent),
      logLevel: 'INFO',
    });
    await createEntry(server, 'spiffe://example.org/victim', parent, [me]);
    await createEntry(server, 'spiffe://example.org/web', parent, [me]);
    await until('both SVIDs', 60_000, async () => {
      [stolen] = [await fetched('/victim'), await fetched('/web')];
      return stolen;
    });
    const web = await fetched('/web');
    writeFileSync(place.path('nginx', 'web.pem'), web.cert);
    writeFileSync(place.path('nginx', 'web-key.pem'), web.key);
    [ports.nginx, ports.envoy, ports.go] = [await freePort(), await freePort(), await freePort()];
    const dir = join(place.dir, 'nginx');
    writeFileSync(
      join(dir, 'nginx.conf'),
      `pid ${dir}/nginx.pid; error_log stderr info; daemon off; ${process.getuid!() === 0 ? 'user root; ' : ''}
events {}
http {
  access_log off;
  client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
  server {
    listen 127.0.0.1:${ports.nginx} ssl;
    ssl_certificate ${dir}/web.pem; ssl_certificate_key ${dir}/web-key.pem;
    ssl_client_certificate ${directory}/bundle.pem; ssl_verify_client on; ssl_verify_depth 3;
    ssl_crl ${directory}/crl.pem;
    location / { return 200 "served\\n"; }
  }
}`,
    );
    nginx = await place.start('nginx', peerPath('nginx'), ['-p', dir, '-c', `${dir}/nginx.conf`]);
    const sds = `{resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: agent}}]}}`;
    await startEnvoy(
      place,
      'envoy',
      `node: {id: server, cluster: example, metadata: {disable_spiffe_cert_validation: true}}
static_resources:
  listeners:
    - name: inbound
      address: {socket_address: {address: 127.0.0.1, port_value: ${ports.envoy}}}
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              disable_stateless_session_resumption: true
              common_tls_context:
                tls_certificate_sds_secret_configs: [{name: "spiffe://example.org/web", sds_config: ${sds}}]
                combined_validation_context:
                  default_validation_context:
                    match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://example.org/victim"}}]
                  validation_context_sds_secret_config: {name: ROOTCA, sds_config: ${sds}}
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: inbound
                route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: served}}}]}]}
                http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  clusters:
    - name: agent
      load_assignment: {cluster_name: agent, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: ${agent.socket}}}}}]}]}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}`,
    );
    const args = ['server', '-socket', `unix://${agent.socket}`, '-authorize', 'spiffe://example.org/victim'];
    args.push('-address', `127.0.0.1:${ports.go}`, '-crl', `${directory}/crl.pem`);
    go = await place.start('go', peerPath('peer-mtls'), args);
    await go.event('listening');
  });
  after(() => place.close());

  const verifiedByUs = (): boolean => {
    const roots = pemDecode(readFileSync(join(directory, 'bundle.pem'), 'utf8'), 'CERTIFICATE');
    const crls = pemDecode(readFileSync(join(directory, 'crl.pem'), 'utf8'), 'X509 CRL').map(parseCrl);
    const bundle = {
      trustDomain: parseTrustDomain('example.org'),
      x509Authorities: roots.map((certificate) => ({ certificate, tainted: false })),
      jwtAuthorities: [],
      witAuthorities: [],
      refreshHint: 0,
      sequence: 1n,
    };
    try {
      const chain = splitCertificates(Buffer.concat(pemDecode(stolen.cert, 'CERTIFICATE')));
      verifyX509Svid(
        chain,
        bundle,
        Date.now(),
        revokedBy(() => crls),
      );
      return true;
    } catch (error) {
      assert.match((error as Error).message, /was revoked at/);
      return false;
    }
  };
  const openssl = async (): Promise<string> => {
    writeFileSync(place.path('stolen.pem'), stolen.cert);
    const args = ['verify', '-crl_check', '-CAfile', `${directory}/bundle.pem`, '-CRLfile', `${directory}/crl.pem`];
    const { stdout, stderr } = await run('openssl', [...args, place.path('stolen.pem')]);
    return stdout + stderr;
  };
  const served = /200 OK[\s\S]*served/;

  test('nginx, Envoy, a Go server, OpenSSL and our verifier let it in, and refuse it when it is revoked', async (t) => {
    assert.match(await until('nginx serves', 60_000, () => request(ports.nginx, stolen)), served);
    await until('Envoy serves', 60_000, async () => served.test(await request(ports.envoy, stolen)));
    await request(ports.go, stolen);
    await go.event('accepted');
    assert.equal(verifiedByUs(), true);
    assert.match(await openssl(), /: OK/);

    const began = performance.now();
    const since = (): string => `${Math.round(performance.now() - began)} ms`;
    const serial = new (await import('node:crypto')).X509Certificate(stolen.cert).serialNumber;
    const done = await mutual(['svid', 'revoke', '--serial', `0x${serial}`, '--admin-socket', server.adminSocket]);
    assert.equal(done.code, 0, done.stderr);
    assert.match(done.stdout, /1 of 1 agent that can be told holds it/);
    t.diagnostic(`the command returned after ${since()}, and said: ${done.stdout.trim().split('\n').at(-1)}`);

    await until('Envoy refuses', 60_000, async () => /^refused/.test(await request(ports.envoy, stolen)), 5);
    t.diagnostic(`Envoy refuses after ${since()}, with the list over SDS`);
    const robbed = await fetched('/victim');
    t.diagnostic(`crl.pem is written after ${since()}`);
    assert.equal(verifiedByUs(), false);
    t.diagnostic(`our verifier refuses after ${since()}`);
    assert.match(await openssl(), /certificate revoked/);
    t.diagnostic(`openssl verify -crl_check refuses after ${since()}`);
    await request(ports.go, stolen);
    await go.event('refused', ({ message }) => /is revoked by list/.test(message));
    t.diagnostic(`the Go server refuses after ${since()}`);
    process.kill(nginx.pid, 'SIGHUP');
    // While it reloads, a worker of before may still take a connection: five in a row are the new ones.
    const refusedByNginx = async (): Promise<boolean> =>
      /400 Bad Request|^refused/.test(await request(ports.nginx, stolen));
    await until('nginx refuses', 60_000, async () => {
      for (let row = 0; row < 5; row++) if (!(await refusedByNginx())) return false;
      return true;
    });
    t.diagnostic(`nginx refuses after ${since()}, with crl.pem and a reload`);
    assert.match(nginx.output(), /certificate revoked/);

    assert.notEqual(robbed.cert, stolen.cert, 'who was robbed has another SVID');
    await until('Envoy serves the new one', 60_000, async () => served.test(await request(ports.envoy, robbed)));
    await until('nginx serves the new one', 60_000, async () => served.test(await request(ports.nginx, robbed)));
  });
});
