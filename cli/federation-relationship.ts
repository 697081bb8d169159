/** Federation relationships: flags and files -> messages, and messages for people. */

import { nearest } from '../src/config/nearest.ts';
import { Fault, quote } from '../src/errors.ts';
import { checkEndpointUrl } from '../src/spiffe/bundle-endpoint.ts';
import { parseId, parseTrustDomainOrId, type TrustDomain } from '../src/spiffe/id.ts';
import { bundleMessage } from './bundle-text.ts';
import type { Message } from './caller.ts';
import type { Values } from './command.ts';
import { adminSocket, choice, id, output, text, trustDomain, withDefault } from './flags.ts';
import { readInput, readJson } from './input-file.ts';
import type { Ports } from './ports.ts';
import { block, table } from './table.ts';

const profiles = ['https_web', 'https_spiffe'] as const;

export const federationFlags = {
  trustDomain: trustDomain('Whose bundle is followed'),
  bundleEndpointUrl: text('URL', 'Where it is published, an https URL'),
  bundleEndpointProfile: choice('PROFILE', profiles, 'How its server proves itself: by Web PKI, or by a SPIFFE ID'),
  endpointSpiffeId: id('SPIFFE-ID', 'The SPIFFE ID of that server, for https_spiffe'),
  trustDomainBundlePath: text(
    'FILE',
    'A first bundle, needed for https_spiffe when the server is in that trust domain; - reads standard input',
  ),
  trustDomainBundleFormat: withDefault(choice('FORMAT', ['pem', 'spiffe'], 'The format of that file'), 'pem'),
  data: text(
    'FILE',
    'Relationships as JSON, {"federationRelationships": [...]}, in place of the other flags; - reads standard input',
  ),
  output,
  adminSocket,
};

type Given = Values<typeof federationFlags>;

/** The relationships that flags or a file describe. Throws `usage/invalid`, `input/invalid`. */
export async function relationshipsFrom(values: Given, ports: Ports): Promise<Message[]> {
  const described = [
    values.trustDomain,
    values.bundleEndpointUrl,
    values.bundleEndpointProfile,
    values.endpointSpiffeId,
    values.trustDomainBundlePath,
  ];
  if (values.data !== undefined) {
    if (described.some((value) => value !== undefined)) {
      throw new Fault('usage/invalid', '--data is given together with flags that describe a relationship', {
        hint: 'Put everything into the file, or leave --data out.',
      });
    }
    return relationshipsFromJson(await readJson(values.data, '--data', ports));
  }
  const missing = [
    ...(values.trustDomain === undefined ? ['--trust-domain TRUST-DOMAIN'] : []),
    ...(values.bundleEndpointUrl === undefined ? ['--bundle-endpoint-url URL'] : []),
    ...(values.bundleEndpointProfile === undefined ? [`--bundle-endpoint-profile ${profiles.join('|')}`] : []),
    ...(values.bundleEndpointProfile === 'https_spiffe' && values.endpointSpiffeId === undefined
      ? ['--endpoint-spiffe-id SPIFFE-ID']
      : []),
  ];
  if (missing.length > 0) {
    throw new Fault(
      'usage/invalid',
      `required ${missing.length === 1 ? 'flag is' : 'flags are'} missing: ${missing.join(', ')}`,
      { hint: 'Give them, or give --data FILE.' },
    );
  }
  const bundle =
    values.trustDomainBundlePath === undefined
      ? undefined
      : await readInput(values.trustDomainBundlePath, '--trust-domain-bundle-path', ports);
  return [
    relationship(
      values.trustDomain!,
      values.bundleEndpointUrl!,
      values.bundleEndpointProfile!,
      values.endpointSpiffeId,
      bundle,
      values.trustDomainBundleFormat,
    ),
  ];
}

function relationship(
  name: TrustDomain,
  url: string,
  profile: (typeof profiles)[number],
  endpointId: string | undefined,
  bundle: string | undefined,
  format: 'pem' | 'spiffe',
): Message {
  if (profile === 'https_web' && endpointId !== undefined) {
    throw new Fault(
      'usage/invalid',
      'an endpoint SPIFFE ID is given with profile https_web, which does not look at it',
      { hint: 'Use https_spiffe, or leave it out.' },
    );
  }
  return {
    trust_domain: name,
    bundle_endpoint_url: checkEndpointUrl(url),
    ...(profile === 'https_web' ? { https_web: {} } : { https_spiffe: { endpoint_spiffe_id: endpointId } }),
    ...(bundle !== undefined && { trust_domain_bundle: bundleMessage(bundle, name, format) }),
  };
}

const fileKeys = [
  'trustDomain',
  'bundleEndpointURL',
  'bundleEndpointProfile',
  'endpointSPIFFEID',
  'trustDomainBundle',
  'trustDomainBundleFormat',
] as const;

/** Reads the file of SPIRE's `federation create -data`. */
function relationshipsFromJson(value: unknown): Message[] {
  const list = (value as { federationRelationships?: unknown } | null)?.federationRelationships;
  if (!Array.isArray(list) || list.length === 0) {
    throw new Fault('input/invalid', '--data has no federationRelationships', {
      hint: `Write {"federationRelationships": [{${fileKeys.map((key) => `"${key}": ...`).join(', ')}}]}.`,
    });
  }
  return list.map((item: unknown, index) => {
    const at = `federationRelationships[${index}]`;
    if (typeof item !== 'object' || item === null)
      throw new Fault('input/invalid', `${at}: ${quote(item)} is not an object`);
    const given = new Map(Object.entries(item));
    for (const [key, text] of given) {
      if (!(fileKeys as readonly string[]).includes(key)) {
        const near = nearest(key, fileKeys);
        throw new Fault('input/invalid', `${at}: unknown key ${quote(key)}`, {
          hint: near === undefined ? `Known keys: ${fileKeys.join(', ')}.` : `Did you mean ${quote(near)}?`,
        });
      }
      if (key !== 'trustDomainBundle' && typeof text !== 'string')
        throw new Fault('input/invalid', `${at}.${key}: ${quote(text)} is not a text`);
    }
    const profile = given.get('bundleEndpointProfile');
    if (!profiles.includes(profile))
      throw new Fault(
        'input/invalid',
        `${at}.bundleEndpointProfile: ${quote(profile)} is not one of ${profiles.join(', ')}`,
      );
    const endpointId = given.get('endpointSPIFFEID');
    const bundle = given.get('trustDomainBundle');
    const format = given.get('trustDomainBundleFormat') ?? 'pem';
    if (format !== 'pem' && format !== 'spiffe')
      throw new Fault('input/invalid', `${at}.trustDomainBundleFormat: ${quote(format)} is not one of pem, spiffe`);
    return relationship(
      parseTrustDomainOrId(given.get('trustDomain') ?? ''),
      given.get('bundleEndpointURL') ?? '',
      profile,
      endpointId === undefined || endpointId === '' ? undefined : parseId(endpointId),
      bundle === undefined || bundle === '' ? undefined : typeof bundle === 'string' ? bundle : JSON.stringify(bundle),
      format,
    );
  });
}

export function relationshipBlock(item: Message, ports: Ports): string {
  return block(ports, [
    ['Trust domain', item.trust_domain],
    ['Bundle endpoint URL', item.bundle_endpoint_url],
    ['Bundle endpoint profile', item.https_spiffe ? 'https_spiffe' : item.https_web ? 'https_web' : '(none)'],
    ['Endpoint SPIFFE ID', item.https_spiffe?.endpoint_spiffe_id],
  ]);
}

export function relationshipTable(items: readonly Message[], ports: Ports): string {
  return table(
    ports,
    ['TRUST DOMAIN', 'BUNDLE ENDPOINT URL', 'PROFILE', 'ENDPOINT SPIFFE ID'],
    items.map((item) => [
      item.trust_domain,
      item.bundle_endpoint_url,
      item.https_spiffe ? 'https_spiffe' : 'https_web',
      item.https_spiffe?.endpoint_spiffe_id ?? '',
    ]),
  );
}
