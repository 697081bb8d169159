/**
 * What a name in SDS stands for: a SPIFFE ID its SVID with the key, the ID of a trust domain what its peers are verified
 * by, and three configured names the default of each and all trust domains at once. A secret is encoded once for each SVID
 * or bundle, however many streams get it.
 */
import { pemEncode } from '../../src/crypto/pem.ts';
import { messageCodec } from '../../src/rpc/load.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { type TrustDomain, trustDomainId } from '../../src/spiffe/id.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Cache } from '../cache.ts';
import type { Identities } from '../identity-sets.ts';
import type { WorkloadSvid } from '../state.ts';
import { allDomains, type Content, hash, oneDomain, type Validator } from './sds-validator.ts';

/** The type of every resource. */
export const secretType = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

export interface SecretNames {
  readonly defaultSvidName: string;
  readonly defaultBundleName: string;
  readonly defaultAllBundlesName: string;
}

export interface SecretSource {
  readonly cache: Cache;
  readonly names: SecretNames;
  /** Revocation lists (DER) of a trust domain; the same array while they are the same. */
  readonly crls?: (trustDomain: TrustDomain) => readonly Buffer[];
}

export interface Secret {
  readonly name: string;
  /** Of the content. It tells nothing of a private key. */
  readonly version: string;
  /** envoy.extensions.transport_sockets.tls.v3.Secret, encoded. */
  readonly bytes: Buffer;
}

/** `coming`: the process is entitled to it and its SVID is not there yet. Undefined: the name stands for nothing here. */
export type Found = Secret | 'coming' | undefined;

const none: readonly Buffer[] = [];

/** The secret that a name stands for, to a process with these identities. */
export function findSecret(name: string, identities: Identities, validator: Validator, source: SecretSource): Found {
  const { cache, names } = source;
  if (name === names.defaultBundleName) return context(name, cache.ownBundle.value, validator, source);
  if (name === names.defaultAllBundlesName) return everything(name, identities, validator, cache);
  if (name === names.defaultSvidName) return certificate(name, identities.entries.slice(0, 1), cache);
  const { bundles, entries } = identities.memo('sds-index', () => ({
    value: index(identities, cache),
    until: Number.POSITIVE_INFINITY,
  }));
  const bundle = bundles.get(name);
  return bundle === undefined
    ? certificate(name, entries.get(name) ?? [], cache)
    : context(name, bundle, validator, source);
}

/** By what they are asked for: hundreds of names may be asked of hundreds of identities. */
function index(identities: Identities, cache: Cache) {
  const bundles = new Map<string, Bundle>();
  for (const bundle of [cache.ownBundle.value, ...identities.federated])
    bundles.set(trustDomainId(bundle.trustDomain), bundle);
  const entries = new Map<string, AuthorizedEntry[]>();
  for (const entry of identities.entries) {
    const same = entries.get(entry.spiffeId);
    if (same === undefined) entries.set(entry.spiffeId, [entry]);
    else same.push(entry);
  }
  return { bundles, entries };
}

/** What a client gets that asks for everything: each identity and each trust domain by its own name, once. */
export function everyName(identities: Identities, { cache }: SecretSource): readonly string[] {
  const domains = [cache.trustDomain, ...identities.federated.map(({ trustDomain }) => trustDomain)];
  return [...new Set([...domains.map(trustDomainId), ...identities.entries.map(({ spiffeId }) => spiffeId)])];
}

function certificate(name: string, entitled: readonly AuthorizedEntry[], cache: Cache): Found {
  if (entitled.length === 0) return undefined;
  for (const entry of entitled) {
    const svid = cache.svidFor(entry);
    if (svid !== undefined) return kept(svid, name, undefined, () => tlsCertificate(svid));
  }
  return 'coming';
}

function tlsCertificate(svid: WorkloadSvid): Content {
  const chain = svid.chain.map((der) => pemEncode('CERTIFICATE', der)).join('');
  return {
    field: messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret').encode({
      tls_certificate: {
        certificate_chain: { inline_bytes: Buffer.from(chain) },
        private_key: { inline_bytes: Buffer.from(pemEncode('PRIVATE KEY', svid.pkcs8)) },
      },
    }),
    version: hash(svid.chain),
  };
}

/** A bundle without X.509 authorities gives no context: Envoy refuses one with nothing in it. */
function context(name: string, bundle: Bundle, validator: Validator, { crls }: SecretSource): Found {
  if (bundle.x509Authorities.length === 0) return undefined;
  const kind = validator === 'spiffe' ? 'spiffe' : 'plain';
  const revoked = kind === 'plain' ? (crls?.(bundle.trustDomain) ?? none) : none;
  return kept(bundle, `${kind} ${name}`, revoked, () => oneDomain(bundle, validator, revoked), name);
}

function everything(name: string, identities: Identities, validator: Validator, cache: Cache): Found {
  if (validator === 'plain') return undefined;
  return identities.memo(`sds-all ${name}`, () => {
    const bundles = [cache.ownBundle.value, ...identities.federated].filter((one) => one.x509Authorities.length > 0);
    const value = bundles.length === 0 ? undefined : secret(name, allDomains(bundles));
    return { value, until: Number.POSITIVE_INFINITY };
  });
}

/** The secret made of an SVID or a bundle, for as long as that is in use and `also` is the same. */
function kept(of: object, key: string, also: unknown, make: () => Content, name = key): Secret {
  let made = secrets.get(of);
  if (made === undefined) {
    made = new Map();
    secrets.set(of, made);
  }
  let found = made.get(key);
  if (found === undefined || found.also !== also) {
    found = { also, secret: secret(name, make()) };
    made.set(key, found);
  }
  return found.secret;
}
const secrets = new WeakMap<object, Map<string, { also: unknown; secret: Secret }>>();

/** The name and the content are two fields of one message: what is encoded apart is concatenated. */
function secret(name: string, { field, version }: Content): Secret {
  const named = messageCodec('envoy.extensions.transport_sockets.tls.v3.Secret').encode({ name });
  return { name, version, bytes: Buffer.concat([named, field]) };
}
