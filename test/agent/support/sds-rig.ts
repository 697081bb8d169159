/** The agent of agent-rig.ts with Envoy's secret discovery, called as a client that keeps to the protocol would. */
import { type SdsOptions, type SdsPorts, sdsApi } from '../../../agent/api/sds.ts';
import { createLog } from '../../../src/log.ts';
import type { Channel } from '../../../src/rpc/connect.ts';
import { messageCodec } from '../../../src/rpc/load.ts';
import type { Service } from '../../../src/rpc/serve.ts';
import type { HeldProcess, UnixPeer } from '../../../src/rpc/unix-peer.ts';
import { parseSelector, selectorSet } from '../../../src/spiffe/selector.ts';
import { agentRig, type RigOptions } from './agent-rig.ts';
import { memoryChannel } from './memory-channel.ts';

export const sds = 'envoy.service.secret.v3.SecretDiscoveryService';
const tls = 'envoy.extensions.transport_sockets.tls.v3';
export const secretUrl = `type.googleapis.com/${tls}.Secret`;

export interface SdsRigOptions extends RigOptions {
  readonly sds?: Partial<SdsOptions>;
  readonly crls?: SdsPorts['crls'];
}

export async function sdsRig(options: SdsRigOptions = {}) {
  const rig = await agentRig(options);
  const lines: any[] = [];
  const texts: string[] = [];
  const log = createLog({
    level: 'trace',
    format: 'json',
    clock: rig.clock,
    write(line) {
      texts.push(line);
      lines.push(JSON.parse(line));
    },
  });
  const processes = new WeakMap<HeldProcess, readonly string[]>();
  const service: Service = sdsApi({
    attestor: { attest: (peer) => selectorSet((processes.get(peer) ?? ['unix:uid:1000']).map(parseSelector)) },
    cache: rig.cache,
    clock: rig.clock,
    log,
    catchUp: rig.sync.catchUp,
    agentId: () => rig.record.id,
    ready: () => rig.sync.status().lastSuccess > 0,
    ...(options.crls && { crls: options.crls }),
    options: {
      defaultSvidName: 'default',
      defaultBundleName: 'ROOTCA',
      defaultAllBundlesName: 'ALL',
      disableSpiffeCertValidation: false,
      requireHeader: false,
      ...options.sds,
    },
  });
  return {
    ...rig,
    service,
    /** What the service logged, parsed, and as written. */
    lines,
    texts,
    envoy(...selectors: string[]): Channel {
      const peer: UnixPeer = { uid: 1000, gid: 1000, pid: 4242, alive: () => true, close() {} };
      if (selectors.length > 0) processes.set(peer, selectors);
      return memoryChannel([service], { kind: 'unix', peer });
    },
  };
}

export type SdsRig = Awaited<ReturnType<typeof sdsRig>>;

/** A node as Envoy tells of itself. */
export const envoyNode = (minor = 30, fields: object = {}) => ({
  id: 'test',
  user_agent_name: 'envoy',
  metadata: { fields },
  user_agent_build_version: { version: { major_number: 1, minor_number: minor } },
});

/** One stream; answers are taken one at a time. */
export function openStream(channel: Channel, method: 'StreamSecrets' | 'DeltaSecrets', rig: SdsRig) {
  const stream = channel.bidi(sds, method);
  const responses = stream.responses[Symbol.asyncIterator]();
  let pending: Promise<any> | undefined;
  const take = (): Promise<any> => (pending ??= responses.next());
  return {
    send: (request: object) => stream.send(request),
    end: () => stream.end(),
    /** The next answer, its secrets read; undefined at the end. */
    async next(): Promise<any> {
      const { value, done } = await take().finally(() => (pending = undefined));
      return done ? undefined : read(value);
    },
    /** Whether nothing comes without time passing. */
    async isSilent(): Promise<boolean> {
      let came = false;
      take().then(
        () => (came = true),
        () => (came = true),
      );
      await rig.clock.advance(0);
      return !came;
    },
    async close() {
      await responses.return?.();
    },
  };
}

/** What an accepting client says to an answer. */
export const accept = (answer: any, names: readonly string[] = answer.names) => ({
  resource_names: names,
  version_info: answer.version_info,
  response_nonce: answer.nonce,
  type_url: secretUrl,
});

export const reject = (answer: any, message: string, names: readonly string[] = answer.names) => ({
  resource_names: names,
  version_info: '',
  response_nonce: answer.nonce,
  type_url: secretUrl,
  error_detail: { code: 13, message },
});

/** An answer of either kind with its secrets by name. */
export function read(answer: any) {
  const found = answer.resources.map((resource: any) => {
    const { type_url, value } = resource.resource ?? resource;
    if (type_url !== secretUrl) throw new Error(`type ${type_url}`);
    return { ...readSecret(value), resource };
  });
  return {
    ...answer,
    names: found.map(({ name }: any) => name),
    secrets: Object.fromEntries(found.map((one: any) => [one.name, one])),
  };
}

function readSecret(bytes: Buffer) {
  const secret = messageCodec(`${tls}.Secret`).decode(bytes);
  const context = secret.validation_context;
  const typed = context?.custom_validator_config?.typed_config;
  return {
    name: secret.name,
    kind: secret.type,
    chain: secret.tls_certificate?.certificate_chain?.inline_bytes?.toString(),
    key: secret.tls_certificate?.private_key?.inline_bytes?.toString(),
    trustedCa: context?.trusted_ca?.inline_bytes?.toString(),
    crl: context?.crl?.inline_bytes?.toString(),
    validator: context?.custom_validator_config?.name,
    validatorType: typed?.type_url,
    /** PEM by trust domain. */
    domains:
      typed &&
      Object.fromEntries(
        messageCodec(`${tls}.SPIFFECertValidatorConfig`)
          .decode(typed.value)
          .trust_domains.map((one: any) => [one.name, one.trust_bundle.inline_bytes.toString()]),
      ),
  };
}
