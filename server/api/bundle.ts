/** spire.api.server.bundle.v1.Bundle: the own bundle for everybody, foreign bundles for operators and agents. */
import { authorityId } from '../../src/crypto/certificate.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Call, Service } from '../../src/rpc/serve.ts';
import type { Bundle, JwtAuthority, X509Authority } from '../../src/spiffe/bundle.ts';
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
import { cutPageByName } from './page.ts';
import { itemStatus } from './status.ts';
import { bundleSize } from './sync-group.ts';

const modes = { RESTRICT: 'restrict', DELETE: 'delete', DISSOCIATE: 'dissociate' } as const;
type DeleteMode = keyof typeof modes;

/** The own bundle goes to every agent and verifier: authorities of each kind, so that it stays a small message. */
const mostAuthorities = 500;

export function bundleService(context: Context): Service {
  const { trustDomain, store, world, authorities, limit, log } = context;

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

  /** Takes a key of a server below. */
  async function publish(kind: 'jwt' | 'wit', wire: WireJwtKey | null, call: Call): Promise<Bundle> {
    await limit(call, 'push');
    if (!wire) throw new Fault('input/invalid', `missing ${kind.toUpperCase()} authority`);
    const key = jwtKeyFromWire(wire, trustDomain);
    // What this server would refuse is not sent on; above it first, so that nobody relies on a key that is known here only.
    withAuthorities(own(), { [kind]: [key] });
    await authorities.publishUpward?.(kind, key);
    const bundle = await authorities.bundle.edit((before) => withAuthorities(before, { [kind]: [key] }));
    await world.reach();
    return bundle;
  }

  const methods = {
    CountBundles: () => ({ count: world.bundles.size }),

    GetBundle({ output_mask }: { output_mask: BundleMask | null }, { caller }: Call) {
      const bundle = own();
      const svid = caller.kind === 'tls' ? caller.svid : undefined;
      // An agent that polls shows by this what it holds, and by whom its own SVID was signed.
      if (svid && world.nodes.get(svid.id)?.serial === svid.leaf.serial.toString())
        context.holdings.fetched(svid.id, bundle, svid.path.slice(1).map(authorityId));
      return bundleToWire(bundle, output_mask);
    },

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
      const bundle = await authorities.bundle.edit((before) => withAuthorities(before, { x509, jwt }));
      await world.reach();
      return bundleToWire(bundle, request.output_mask);
    },

    async PublishJWTAuthority({ jwt_authority }: { jwt_authority: WireJwtKey | null }, call: Call) {
      const { jwtAuthorities } = await publish('jwt', jwt_authority, call);
      return { jwt_authorities: jwtAuthorities.map(jwtKeyToWire) };
    },

    async PublishWITAuthority({ wit_authority }: { wit_authority: WireJwtKey | null }, call: Call) {
      if (!authorities.wit) throw new Fault('method/unimplemented', 'WIT authorities are not published');
      const { witAuthorities } = await publish('wit', wit_authority, call);
      return { wit_authorities: witAuthorities.map(jwtKeyToWire) };
    },

    ListFederatedBundles(request: { output_mask: BundleMask | null; page_size: number; page_token: string }) {
      const foreign = [...world.bundles.values()].filter((bundle) => bundle.trustDomain !== trustDomain);
      const page = cutPageByName(
        foreign,
        (bundle) => bundle.trustDomain,
        request.page_size,
        request.page_token,
        bundleSize,
      );
      return {
        bundles: page.items.map((bundle) => bundleToWire(bundle, request.output_mask)),
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
      const how = modes[mode];
      if (!how) throw new Fault('input/invalid', `mode ${quote(mode)} is none of RESTRICT, DELETE and DISSOCIATE`);
      const results = [];
      for (const trust_domain of trust_domains) {
        const result = await itemStatus(log, async () => {
          const outcome = await store.bundles.delete(foreign(trust_domain), how);
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

interface Added {
  readonly x509?: readonly X509Authority[];
  readonly jwt?: readonly JwtAuthority[];
  readonly wit?: readonly JwtAuthority[];
}

/** The bundle with authorities added that it has not; undefined when it has them all. */
function withAuthorities(before: Bundle, { x509 = [], jwt = [], wit = [] }: Added): Bundle | undefined {
  const x509Authorities = [...before.x509Authorities];
  for (const one of x509) {
    if (!x509Authorities.some((held) => held.certificate.equals(one.certificate))) x509Authorities.push(one);
  }
  const jwtAuthorities = withKeys(before.jwtAuthorities, jwt, 'JWT', { keys: before.witAuthorities, what: 'WIT' });
  const witAuthorities = withKeys(before.witAuthorities, wit, 'WIT', { keys: jwtAuthorities, what: 'JWT' });
  const after = { ...before, x509Authorities, jwtAuthorities, witAuthorities };
  if (count(after) === count(before)) return undefined;
  if (Math.max(x509Authorities.length, jwtAuthorities.length, witAuthorities.length) > mostAuthorities) {
    throw new Fault('limit/exceeded', `a bundle holds at most ${mostAuthorities} authorities of a kind`, {
      hint: 'Those that have expired are removed a day later.',
    });
  }
  return after;
}

const count = ({ x509Authorities, jwtAuthorities, witAuthorities }: Bundle): number =>
  x509Authorities.length + jwtAuthorities.length + witAuthorities.length;

/** An ID stands for one key, and for one kind of tokens (WIT-29). */
function withKeys(
  before: readonly JwtAuthority[],
  added: readonly JwtAuthority[],
  what: string,
  others: { readonly keys: readonly JwtAuthority[]; readonly what: string },
): readonly JwtAuthority[] {
  const after = [...before];
  const hint = 'Give every key an ID of its own.';
  for (const one of added) {
    const there = after.find((held) => held.keyId === one.keyId);
    if (others.keys.some((held) => held.keyId === one.keyId))
      throw new Fault('input/invalid', `${quote(one.keyId)} is the ID of a ${others.what} authority in the bundle`, {
        hint,
      });
    if (!there) after.push(one);
    else if (!there.publicKey.equals(one.publicKey)) {
      const where = `${what} authority ${quote(one.keyId)} is in the bundle already, with another key`;
      throw new Fault('input/invalid', where, { hint });
    }
  }
  return after;
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
