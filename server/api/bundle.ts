/** spire.api.server.bundle.v1.Bundle: the own bundle for everybody, foreign bundles for operators and agents. */
import { Fault, quote } from '../../src/errors.ts';
import type { Service } from '../../src/rpc/serve.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { parseTrustDomainOrId, type TrustDomain } from '../../src/spiffe/id.ts';
import {
  type BundleMask,
  bundleFromWire,
  bundleToWire,
  jwtKeyFromWire,
  jwtKeyToWire,
  type WireBundle,
  type WireJwtKey,
  type WireX509Authority,
  x509AuthoritiesFromWire,
} from '../../src/wire/bundle.ts';
import type { Context } from './context.ts';
import { cutPage } from './page.ts';
import { itemStatus } from './status.ts';

type DeleteMode = 'RESTRICT' | 'DELETE' | 'DISSOCIATE';

export function bundleService({ trustDomain, store, world, authorities, limit, log }: Context): Service {
  function own(): Bundle {
    const bundle = world.bundles.get(trustDomain);
    if (!bundle) throw new Fault('thing/missing', 'bundle not found');
    return bundle;
  }

  function foreign(name: string): TrustDomain {
    const domain = parseTrustDomainOrId(name);
    if (domain !== trustDomain) return domain;
    throw new Fault(
      'input/invalid',
      `trust domain ${quote(name)} is this server's own: its bundle is not a federated one`,
    );
  }

  /** Reads one bundle of a batch, writes it as expected, tells the outcome. */
  async function putEach(
    wires: readonly WireBundle[],
    mask: BundleMask | null,
    write: (bundle: Bundle, wire: WireBundle) => Promise<Bundle>,
  ) {
    const results = [];
    for (const wire of wires) {
      results.push(
        await itemStatus(log, async () => {
          foreign(wire.trust_domain);
          return { bundle: bundleToWire(await write(bundleFromWire(wire), wire), mask) };
        }),
      );
    }
    await world.reach();
    return { results };
  }

  const methods = {
    CountBundles: () => ({ count: world.bundles.size }),

    GetBundle: ({ output_mask }: { output_mask: BundleMask | null }) => bundleToWire(own(), output_mask),

    async AppendBundle(request: {
      x509_authorities: WireX509Authority[];
      jwt_authorities: WireJwtKey[];
      output_mask: BundleMask | null;
    }) {
      if (request.x509_authorities.length + request.jwt_authorities.length === 0) {
        throw new Fault('input/invalid', 'no authorities to append');
      }
      const x509 = x509AuthoritiesFromWire(request.x509_authorities, trustDomain).map((one) => ({
        ...one,
        tainted: false,
      }));
      const jwt = request.jwt_authorities.map((key) => ({ ...jwtKeyFromWire(key, trustDomain), tainted: false }));
      const bundle = await authorities.bundle.edit((before) => {
        const newX509 = x509.filter(
          (one) => !before.x509Authorities.some((held) => held.certificate.equals(one.certificate)),
        );
        const newJwt = jwt.filter((one) => !before.jwtAuthorities.some((held) => held.keyId === one.keyId));
        if (newX509.length + newJwt.length === 0) return undefined;
        return {
          ...before,
          x509Authorities: [...before.x509Authorities, ...newX509],
          jwtAuthorities: [...before.jwtAuthorities, ...newJwt],
        };
      });
      await world.reach();
      return bundleToWire(bundle, request.output_mask);
    },

    async PublishJWTAuthority(
      { jwt_authority }: { jwt_authority: WireJwtKey | null },
      call: Parameters<typeof limit>[0],
    ) {
      await limit(call, 'push');
      if (!jwt_authority) throw new Fault('input/invalid', 'missing JWT authority');
      const key = jwtKeyFromWire(jwt_authority, trustDomain);
      const bundle = await authorities.bundle.edit((before) =>
        before.jwtAuthorities.some((held) => held.keyId === key.keyId)
          ? undefined
          : { ...before, jwtAuthorities: [...before.jwtAuthorities, key] },
      );
      await world.reach();
      return { jwt_authorities: bundle.jwtAuthorities.map(jwtKeyToWire) };
    },

    PublishWITAuthority() {
      throw new Fault('method/unimplemented', 'WIT authorities are not published');
    },

    ListFederatedBundles(request: { output_mask: BundleMask | null; page_size: number; page_token: string }) {
      // In name order, numbered by place: the token stays meaningful as long as no bundle comes or goes.
      const all = [...world.bundles.values()]
        .filter((bundle) => bundle.trustDomain !== trustDomain)
        .sort((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1))
        .map((bundle, place) => ({ seq: place + 1, bundle }));
      const page = cutPage(
        (after) => all.slice(after),
        () => true,
        request.page_size,
        request.page_token,
      );
      return {
        bundles: page.items.map(({ bundle }) => bundleToWire(bundle, request.output_mask)),
        next_page_token: page.next,
      };
    },

    GetFederatedBundle(request: { trust_domain: string; output_mask: BundleMask | null }) {
      const bundle = world.bundles.get(foreign(request.trust_domain));
      if (!bundle) throw new Fault('thing/missing', 'bundle not found');
      return bundleToWire(bundle, request.output_mask);
    },

    BatchCreateFederatedBundle: (request: { bundle: WireBundle[]; output_mask: BundleMask | null }) =>
      putEach(request.bundle, request.output_mask, async (bundle) => {
        if (await store.bundles.put(bundle, 'absent')) return bundle;
        throw new Fault('thing/exists', 'bundle already exists');
      }),

    BatchUpdateFederatedBundle: (request: {
      bundle: WireBundle[];
      input_mask: BundleMask | null;
      output_mask: BundleMask | null;
    }) =>
      putEach(request.bundle, request.output_mask, async (bundle) => {
        const stored = await store.bundles.get(bundle.trustDomain);
        const next = stored && applyMask(stored, bundle, request.input_mask);
        if (next && (await store.bundles.put(next, 'present'))) return next;
        throw new Fault('thing/missing', 'bundle not found');
      }),

    BatchSetFederatedBundle: (request: { bundle: WireBundle[]; output_mask: BundleMask | null }) =>
      putEach(request.bundle, request.output_mask, async (bundle) => {
        await store.bundles.put(bundle, 'any');
        return bundle;
      }),

    async BatchDeleteFederatedBundle({ trust_domains, mode }: { trust_domains: string[]; mode: DeleteMode }) {
      const results = [];
      for (const trust_domain of trust_domains) {
        const result = await itemStatus(log, async () => {
          const outcome = await store.bundles.delete(
            foreign(trust_domain),
            mode.toLowerCase() as 'restrict' | 'delete' | 'dissociate',
          );
          if (outcome === 'missing') throw new Fault('thing/missing', 'bundle not found');
          if (outcome !== 'deleted') {
            throw new Fault(
              'state/refused',
              `cannot delete bundle; federated with ${outcome.linked} registration entries`,
              {
                hint: 'Use mode "dissociate" to unlink them or "delete" to delete them too.',
              },
            );
          }
          return {};
        });
        results.push({ ...result, trust_domain });
      }
      await world.reach();
      return { results };
    },
  };
  return { name: 'spire.api.server.bundle.v1.Bundle', methods };
}

function applyMask(stored: Bundle, given: Bundle, mask: BundleMask | null): Bundle {
  if (!mask) return given;
  return {
    trustDomain: stored.trustDomain,
    x509Authorities: mask.x509_authorities ? given.x509Authorities : stored.x509Authorities,
    jwtAuthorities: mask.jwt_authorities ? given.jwtAuthorities : stored.jwtAuthorities,
    witAuthorities: mask.wit_authorities ? given.witAuthorities : stored.witAuthorities,
    refreshHint: mask.refresh_hint ? given.refreshHint : stored.refreshHint,
    sequence: mask.sequence_number ? given.sequence : stored.sequence,
  };
}
