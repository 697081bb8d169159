/** spire.api.server.trustdomain.v1.TrustDomain: federation relationships. */
import { Fault, quote } from '../../src/errors.ts';
import type { Service } from '../../src/rpc/serve.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { checkEndpointUrl } from '../../src/spiffe/bundle-endpoint.ts';
import { parseId, parseTrustDomainOrId } from '../../src/spiffe/id.ts';
import { bundleFromWire, bundleToWire, type WireBundle } from '../../src/wire/bundle.ts';
import type { FederationRelationship } from '../store/store.ts';
import type { Context } from './context.ts';
import { cutPageByName } from './page.ts';
import { itemStatus } from './status.ts';

interface WireRelationship {
  trust_domain: string;
  bundle_endpoint_url: string;
  https_web?: object | null;
  https_spiffe?: { endpoint_spiffe_id: string } | null;
  trust_domain_bundle?: WireBundle | null;
}

interface RelationshipMask {
  bundle_endpoint_url: boolean;
  bundle_endpoint_profile: boolean;
  trust_domain_bundle: boolean;
}

export function trustDomainService({ trustDomain, store, world, log }: Context): Service {
  function toWire(relationship: FederationRelationship, mask: RelationshipMask | null): object {
    const { profile } = relationship;
    const bundle = world.bundles.get(relationship.trustDomain);
    return {
      trust_domain: relationship.trustDomain,
      ...((!mask || mask.bundle_endpoint_url) && { bundle_endpoint_url: relationship.bundleEndpointUrl }),
      ...((!mask || mask.bundle_endpoint_profile) && profileToWire(profile)),
      ...((!mask || mask.trust_domain_bundle) && bundle && { trust_domain_bundle: bundleToWire(bundle) }),
    };
  }

  async function find(name: string): Promise<FederationRelationship> {
    const found = await store.federation.get(parseTrustDomainOrId(name));
    if (!found) throw new Fault('thing/missing', 'federation relationship does not exist');
    return found;
  }

  function read(wire: WireRelationship): { relationship: FederationRelationship; bundle: Bundle | undefined } {
    const domain = parseTrustDomainOrId(wire.trust_domain);
    if (domain === trustDomain) {
      throw new Fault(
        'input/invalid',
        `trust domain ${quote(domain)} is this server's own: it cannot federate with itself`,
      );
    }
    const bundle = wire.trust_domain_bundle ? bundleFromWire(wire.trust_domain_bundle) : undefined;
    if (bundle && bundle.trustDomain !== domain) {
      throw new Fault(
        'input/invalid',
        `the bundle is of trust domain ${quote(bundle.trustDomain)}, the relationship of ${quote(domain)}`,
      );
    }
    return {
      relationship: {
        trustDomain: domain,
        bundleEndpointUrl: checkEndpointUrl(wire.bundle_endpoint_url),
        profile: readProfile(wire),
      },
      bundle,
    };
  }

  async function each(
    wires: readonly WireRelationship[],
    work: (wire: WireRelationship) => Promise<FederationRelationship>,
    mask: RelationshipMask | null,
  ) {
    const results = [];
    for (const wire of wires) {
      results.push(
        await itemStatus(log, async () => {
          const written = await work(wire);
          await world.reach();
          return { federation_relationship: toWire(written, mask) };
        }),
      );
    }
    return { results };
  }

  const methods = {
    async ListFederationRelationships(request: {
      output_mask: RelationshipMask | null;
      page_size: number;
      page_token: string;
    }) {
      const all = await store.federation.list();
      const page = cutPageByName(all, ({ trustDomain }) => trustDomain, request.page_size, request.page_token);
      return {
        federation_relationships: page.items.map((relationship) => toWire(relationship, request.output_mask)),
        next_page_token: page.next,
      };
    },

    GetFederationRelationship: async (request: { trust_domain: string; output_mask: RelationshipMask | null }) =>
      toWire(await find(request.trust_domain), request.output_mask),

    BatchCreateFederationRelationship: (request: {
      federation_relationships: WireRelationship[];
      output_mask: RelationshipMask | null;
    }) =>
      each(
        request.federation_relationships,
        async (wire) => {
          const { relationship, bundle } = read(wire);
          if (await store.federation.create(relationship, bundle)) return relationship;
          throw new Fault(
            'thing/exists',
            `federation relationship with trust domain ${quote(relationship.trustDomain)} already exists`,
          );
        },
        request.output_mask,
      ),

    BatchUpdateFederationRelationship: (request: {
      federation_relationships: WireRelationship[];
      input_mask: RelationshipMask | null;
      output_mask: RelationshipMask | null;
    }) =>
      each(
        request.federation_relationships,
        async (wire) => {
          const mask = request.input_mask;
          const stored = await find(wire.trust_domain);
          const merged: WireRelationship = {
            ...wire,
            bundle_endpoint_url:
              !mask || mask.bundle_endpoint_url ? wire.bundle_endpoint_url : stored.bundleEndpointUrl,
            ...(mask && !mask.bundle_endpoint_profile && profileToWire(stored.profile)),
            trust_domain_bundle: !mask || mask.trust_domain_bundle ? (wire.trust_domain_bundle ?? null) : null,
          };
          const { relationship, bundle } = read(merged);
          if (await store.federation.update(relationship, bundle)) return relationship;
          throw new Fault('thing/missing', 'federation relationship does not exist');
        },
        request.output_mask,
      ),

    async BatchDeleteFederationRelationship({ trust_domains }: { trust_domains: string[] }) {
      const results = [];
      for (const trust_domain of trust_domains) {
        const result = await itemStatus(log, async () => {
          if (await store.federation.delete(parseTrustDomainOrId(trust_domain))) return {};
          throw new Fault('thing/missing', 'federation relationship does not exist');
        });
        results.push({ ...result, trust_domain });
      }
      return { results };
    },

    async RefreshBundle({ trust_domain }: { trust_domain: string }) {
      await find(trust_domain);
      throw new Fault('method/unimplemented', 'this server does not poll bundle endpoints', {
        hint: 'Set the bundle with `mutual bundle set`.',
      });
    },
  };
  return { name: 'spire.api.server.trustdomain.v1.TrustDomain', methods };
}

/** Both fields, so that one spread over a request takes the place of whichever that had. */
function profileToWire(
  profile: FederationRelationship['profile'],
): Pick<WireRelationship, 'https_web' | 'https_spiffe'> {
  return profile.kind === 'https_web'
    ? { https_web: {}, https_spiffe: null }
    : { https_web: null, https_spiffe: { endpoint_spiffe_id: profile.endpointSpiffeId } };
}

function readProfile(wire: WireRelationship): FederationRelationship['profile'] {
  if (wire.https_spiffe)
    return { kind: 'https_spiffe', endpointSpiffeId: parseId(wire.https_spiffe.endpoint_spiffe_id) };
  if (wire.https_web) return { kind: 'https_web' };
  throw new Fault('input/invalid', 'the bundle endpoint profile is missing', {
    hint: 'Choose https_web or https_spiffe.',
  });
}
