/**
 * How an Envoy is told what to verify peers by. The validator of SPIFFE IDs knows each trust domain with its own
 * authorities; the plain kind is a heap of certificates of which any may have signed any peer, so it never holds more than
 * one trust domain's: an authority of one could name workloads of another.
 */
import { createHash } from 'node:crypto';
import { pemEncode } from '../../src/crypto/pem.ts';
import { messageCodec } from '../../src/rpc/load.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';

const tls = 'envoy.extensions.transport_sockets.tls.v3';

/** The kind for a client: `unsaid` when it does not say what it is, as programs other than Envoy do not. */
export type Validator = 'spiffe' | 'plain' | 'unsaid';

/** What is read of envoy.config.core.v3.Node. */
export interface ClientNode {
  readonly metadata?: {
    readonly fields?: Readonly<Record<string, { readonly boolValue?: boolean; readonly stringValue?: string }>>;
  } | null;
  readonly user_agent_build_version?: {
    readonly version?: { readonly major_number: number; readonly minor_number: number } | null;
  } | null;
}

/** In a node's metadata, as a boolean or its text: wins over what the operator of the agent configured. */
const switchName = 'disable_spiffe_cert_validation';
const yes = new Set(['1', 't', 'T', 'true', 'TRUE', 'True']);
const no = new Set(['0', 'f', 'F', 'false', 'FALSE', 'False']);

/** @param disabled what is configured for clients that do not choose */
export function validatorFor(node: ClientNode | null | undefined, disabled: boolean): Validator {
  const chosen = node?.metadata?.fields?.[switchName];
  const text = String(chosen?.boolValue ?? chosen?.stringValue ?? '');
  if (yes.has(text) || (disabled && !no.has(text))) return 'plain';
  const version = node?.user_agent_build_version?.version;
  if (version == null) return 'unsaid';
  // Envoy has the validator since 1.18.
  return version.major_number > 1 || (version.major_number === 1 && version.minor_number >= 18) ? 'spiffe' : 'plain';
}

/** A field of envoy.extensions.transport_sockets.tls.v3.Secret, encoded, and the hash of what it says. */
export interface Content {
  readonly field: Buffer;
  readonly version: string;
}

/** A validation context for one trust domain. */
export function oneDomain(bundle: Bundle, validator: Validator, crls: readonly Buffer[]): Content {
  if (validator === 'spiffe') return allDomains([bundle]);
  const crl = crls.map((der) => pemEncode('X509 CRL', der)).join('');
  return {
    field: messageCodec(`${tls}.Secret`).encode({
      validation_context: {
        trusted_ca: { inline_bytes: authoritiesPem(bundle) },
        ...(crl === '' ? {} : { crl: { inline_bytes: Buffer.from(crl) } }),
      },
    }),
    version: hash(['plain', versionOf(bundle), ...crls]),
  };
}

/** A validation context of the SPIFFE kind for several trust domains, which is the only kind that keeps them apart. */
export function allDomains(bundles: readonly Bundle[]): Content {
  // Concatenated messages are one message with all their repeated fields.
  const value = Buffer.concat(bundles.map(trustDomainField));
  return {
    field: messageCodec(`${tls}.Secret`).encode({
      validation_context: {
        custom_validator_config: {
          name: 'envoy.tls.cert_validator.spiffe',
          typed_config: { type_url: `type.googleapis.com/${tls}.SPIFFECertValidatorConfig`, value },
        },
      },
    }),
    version: hash(['spiffe', ...bundles.map(versionOf)]),
  };
}

/** A bundle is encoded once, however many contexts it stands in. */
function trustDomainField(bundle: Bundle): Buffer {
  let field = fields.get(bundle);
  if (field === undefined) {
    field = messageCodec(`${tls}.SPIFFECertValidatorConfig`).encode({
      trust_domains: [{ name: bundle.trustDomain, trust_bundle: { inline_bytes: authoritiesPem(bundle) } }],
    });
    fields.set(bundle, field);
  }
  return field;
}
const fields = new WeakMap<Bundle, Buffer>();

const authoritiesPem = (bundle: Bundle): Buffer =>
  Buffer.from(bundle.x509Authorities.map(({ certificate }) => pemEncode('CERTIFICATE', certificate)).join(''));

const versionOf = (bundle: Bundle): string =>
  hash([bundle.trustDomain, ...bundle.x509Authorities.map(({ certificate }) => certificate)]);

/** The version of a content: the same after a restart of the agent, so that clients which come back are not sent it again. */
export function hash(parts: readonly (string | Buffer)[]): string {
  const digest = createHash('sha256');
  for (const part of parts) {
    const bytes = Buffer.from(part as string);
    digest.update(`${bytes.length}:`).update(bytes);
  }
  return digest.digest('hex').slice(0, 32);
}
