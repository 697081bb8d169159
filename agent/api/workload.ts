/**
 * The SPIFFE Workload API for X.509 and JWT. Each stream begins with the full state at once and sends it again at every
 * change that concerns the caller; when the caller loses its last identity the stream ends with PERMISSION_DENIED. The
 * profile of WIT-SVIDs is in wit.ts; without it those methods answer UNIMPLEMENTED.
 */
import { Fault, quote, Status } from '../../src/errors.ts';
import type { Call, Encoded, Send, Service } from '../../src/rpc/serve.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import { parseId, type TrustDomain, trustDomainOf } from '../../src/spiffe/id.ts';
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Cache } from '../cache.ts';
import type { Identities } from '../identity-sets.ts';
import { type JwtCache, type JwtSvid, readAudience } from '../jwt-cache.ts';
import { validatedTokens } from '../validated.ts';
import type { WitCache } from '../wit-cache.ts';
import { type CallerPorts, entitled, identitiesOf, redacted } from './caller.ts';
import { tellableClaims } from './claims.ts';
import { follow, type Wakes } from './follow.ts';
import { hintsOf, jwtBundles, jwtSvids, type Material, validation, x509Bundles, x509Svids } from './messages.ts';
import { notSigned } from './not-signed.ts';
import { witMethods } from './wit.ts';

export interface WorkloadApiPorts extends CallerPorts {
  readonly clock: Clock;
  readonly jwts: JwtCache;
  /** Undefined where WIT-SVIDs are not offered. */
  readonly wits?: WitCache | undefined;
  /** Whether processes without an identity may have bundles. */
  readonly allowUnauthenticatedVerifiers: boolean;
  /** Claims of foreign JWT-SVIDs that are told beside sub, aud and exp. */
  readonly allowedForeignJwtClaims: readonly string[];
}

interface ValidateRequest {
  readonly audience: string;
  readonly svid: string;
}
type BundleOf = (trustDomain: TrustDomain) => Bundle | undefined;

const header = 'workload.spiffe.io';
/** How long a first message is held for SVIDs that are still on their way, milliseconds. */
const firstPatience = 10_000;
/** How far clocks may differ when a token is validated, milliseconds. */
const leeway = 5_000;

/**
 * WE-6: a request without the header is refused, so that a browser or proxy led to the socket by somebody else gets
 * nothing. Health and reflection do without: they hold no secrets, and the tools that ask for them (a kubelet's gRPC
 * probe, grpcurl) have no way to send it.
 */
export function requireHeader(call: Call): void {
  if (!call.method.startsWith('/SpiffeWorkloadAPI/') || call.metadata(header) === 'true') return;
  throw new Fault('input/invalid', 'security header missing from request', {
    hint: `Send the metadata "${header}: true".`,
  });
}

export function workloadApi(ports: WorkloadApiPorts): Service {
  const { cache, clock, jwts } = ports;

  /** Identities for bundles: none at all may do where the operator allows it. */
  const verifier = (call: Call): Identities | Promise<Identities> =>
    ports.allowUnauthenticatedVerifiers ? identitiesOf(call, ports) : entitled(call, ports);

  const validated = validatedTokens();
  const validate = async ({ svid, audience }: ValidateRequest, bundleOf: BundleOf): Promise<Encoded> => {
    const from = clock.now();
    const { id, claims, expiresAt, keyId } = await verified(verifyJwtSvid(svid, audience, bundleOf, from, leeway));
    const trustDomain = trustDomainOf(id);
    const denied = cache.revocations.value.tokens;
    if (trustDomain === cache.trustDomain) denied.check(id, claims);
    const told = tellableClaims(claims, trustDomain === cache.trustDomain, ports.allowedForeignJwtClaims);
    const answer = validation(id, told);
    const bundle = bundleOf(trustDomain);
    if (bundle !== undefined) {
      // A key may end before the token.
      const keyEnds =
        (bundle.jwtAuthorities.find((key) => key.keyId === keyId)?.expiresAt || Number.POSITIVE_INFINITY) * 1000;
      validated.keep(svid, audience, {
        trustDomain,
        bundle,
        denied,
        from,
        until: Math.min(expiresAt, keyEnds),
        answer,
      });
    }
    return answer;
  };

  const bundleStream =
    (make: (identities: Identities) => Encoded) =>
    async (_request: object, call: Call, send: Send): Promise<void> => {
      const identities = await verifier(call);
      const mayHaveNone = ports.allowUnauthenticatedVerifiers;
      const message = (): Encoded => {
        if (identities.entries.length === 0 && !mayHaveNone) throw redacted();
        return make(identities);
      };
      await follow(call, send, message, identities.follow);
    };

  return {
    name: 'SpiffeWorkloadAPI',
    methods: {
      async FetchX509SVID(_request: object, call, send) {
        const found = entitled(call, ports);
        const identities = found instanceof Promise ? await found : found;
        const patience: Wakes = (wake) => clock.after(firstPatience, wake);
        // Nearly every stream begins with everything there, and needs no timer.
        const wakes = identities.complete() ? [identities.follow] : [identities.follow, patience];
        await follow(call, send, firstComplete(identities, ports), ...wakes);
      },

      FetchX509Bundles: bundleStream((identities) => x509Bundles(cache, identities)),

      FetchJWTBundles: bundleStream((identities) => jwtBundles(cache, identities)),

      FetchJWTSVID(request: { audience: string[]; spiffe_id: string }, call) {
        const audience = readAudience(request.audience);
        const wanted = request.spiffe_id === '' ? undefined : parseId(request.spiffe_id);
        const answer = (identities: Identities): Encoded | Promise<Encoded> => {
          const entries =
            wanted === undefined
              ? identities.entries
              : identities.entries.filter(({ spiffeId }) => spiffeId === wanted);
          if (entries.length === 0) {
            throw new Fault('caller/denied', `no identity issued: the process is not entitled to ${quote(wanted)}`, {
              hint: `It is entitled to ${identities.entries.map(({ spiffeId }) => spiffeId).join(', ')}.`,
            });
          }
          return tokens(entries, identities, audience, jwts);
        };
        const identities = entitled(call, ports);
        return identities instanceof Promise ? identities.then(answer) : answer(identities);
      },

      ValidateJWTSVID(request: ValidateRequest, call) {
        if (request.audience === '')
          throw new Fault('input/invalid', 'audience is empty: expected the name this service is known by');
        if (request.svid === '') throw new Fault('input/invalid', 'svid is empty: expected a JWT-SVID');
        const answer = (identities: Identities): Encoded | Promise<Encoded> => {
          const bundleOf = (trustDomain: TrustDomain): Bundle | undefined =>
            trustDomain === cache.trustDomain
              ? cache.ownBundle.value
              : identities.federated.find((bundle) => bundle.trustDomain === trustDomain);
          const denied = cache.revocations.value.tokens;
          const known = validated.find(request.svid, request.audience, bundleOf, denied, clock.now());
          return known ?? validate(request, bundleOf);
        };
        const identities = identitiesOf(call, ports);
        return identities instanceof Promise ? identities.then(answer) : answer(identities);
      },

      ...(ports.wits && witMethods(ports, ports.wits, bundleStream)),
    },
  };
}

/** A refused token is the caller's affair, whatever the validator's code for it is. */
async function verified<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault('svid/invalid', error.message, { status: Status.INVALID_ARGUMENT, cause: error });
  }
}

/**
 * What a stream of X509-SVIDs says of each state. The first message waits for SVIDs on their way, within reason; later,
 * an identity that is new joins when its SVID is there, and one that is lost leaves at once.
 */
function firstComplete(identities: Identities, ports: WorkloadApiPorts): () => Encoded | undefined {
  const { cache, clock } = ports;
  const started = clock.now();
  let isFirst = true;
  return () => {
    const { entries } = identities;
    if (entries.length === 0) throw redacted();
    const message = x509Svids(cache, identities, clock.now());
    if (!isFirst) return message;
    if (!identities.complete() && clock.now() - started < firstPatience) return undefined;
    if (message === undefined) throw notIssued(entries, cache);
    isFirst = false;
    return message;
  };
}

/** One token for each identity (WA-29), at once when all of them are kept. */
export function tokens(
  entries: readonly AuthorizedEntry[],
  identities: Material,
  audience: readonly string[],
  jwts: JwtCache,
): Encoded | Promise<Encoded> {
  const hints = identities.memo('hints', () => ({
    value: hintsOf(identities.entries),
    until: Number.POSITIVE_INFINITY,
  }));
  const answer = (svids: readonly JwtSvid[]): Encoded =>
    jwtSvids(svids.map((svid, index) => ({ svid, hint: hints.get(entries[index]!.id) ?? '' })));
  const found = entries.map((entry) => jwts.fetch(entry, audience));
  return found.some((one) => one instanceof Promise)
    ? Promise.all(found).then(answer, (error: unknown) => notSigned(error))
    : answer(found as JwtSvid[]);
}

/** What is said when the first message has waited long enough and there is no SVID. */
export function notIssued(entries: readonly AuthorizedEntry[], cache: Cache): Fault {
  const refusal = entries.map(({ id }) => cache.refusal(id)).find((fault) => fault !== undefined);
  return new Fault(
    'peer/unavailable',
    `no X509-SVID could be got for ${entries.map(({ spiffeId }) => spiffeId).join(', ')}`,
    {
      hint: 'Try again; the agent’s log says why.',
      ...(refusal === undefined ? {} : { detail: refusal.message }),
    },
  );
}
