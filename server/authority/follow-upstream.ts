/**
 * What an upstream authority holds, taken into the own bundle: new roots and keys are added, tainted ones marked, and
 * tainted ones that it has no more are taken out. What signs below a tainted root is replaced at once.
 */
import { authorityId, parseCertificate } from '../../src/crypto/certificate.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Bundle, JwtAuthority, X509Authority } from '../../src/spiffe/bundle.ts';
import { bundlePruneAt } from '../../src/spiffe/lifetime.ts';
import type { SteadyUpstream } from '../upstream/steady.ts';
import type { UpstreamState } from '../upstream/upstream.ts';
import type { Authority, AuthorityKind } from './authority.ts';
import type { DistrustedRoots } from './distrust.ts';
import type { JwtSigner } from './jwt.ts';
import type { OwnBundle } from './own-bundle.ts';
import type { UpstreamRoots } from './upstream-roots.ts';
import type { X509Signer } from './x509.ts';

export interface FollowPorts {
  readonly distrusted: DistrustedRoots;
  readonly roots: UpstreamRoots;
  readonly clock: Clock;
  readonly log: Log;
}

/** Takes over what the upstream holds now. Called every few seconds. */
export async function followUpstream(
  upstream: SteadyUpstream,
  x509: Authority<X509Signer>,
  bundle: OwnBundle,
  { distrusted, roots, clock, log }: FollowPorts,
): Promise<void> {
  await roots.heed();
  const state = await upstream.state();
  if (state === undefined) return;
  // First of all: whoever learns of a taint here asks this server for what leads elsewhere, once.
  const left = await leave(x509, state.x509Authorities, log).then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  const needed = x509.state().active?.upstream?.id;
  let gone: readonly X509Authority[] = [];
  const after = await bundle.edit((before) => {
    const merged = merge(before, state, clock.now(), distrusted.of, needed);
    gone = merged.gone;
    return merged.bundle;
  });
  for (const { certificate } of gone) {
    const id = rootIdOf(certificate);
    log.warn({ upstreamAuthority: id }, 'root taken out of the bundle, as upstream');
    await x509.forgetRoot(id);
  }
  if (left) throw left.error;
  // Tainted here and not there, by an operator of this server.
  await leave(x509, after.x509Authorities, log);
}

/** Replaces what signs below a root that is tainted. */
async function leave(x509: Authority<X509Signer>, roots: readonly X509Authority[], log: Log): Promise<void> {
  const above = x509.state().active?.upstream;
  if (!above || !roots.some((one) => one.tainted && rootIdOf(one.certificate) === above.id)) return;
  if (await x509.leaveRoot(above.id)) log.warn({ upstreamAuthority: above.id }, 'left a tainted upstream authority');
}

/** Has a key published to the whole trust domain through an upstream, and takes over the keys of all others. */
export async function publishUpward(
  key: JwtAuthority,
  upstream: SteadyUpstream,
  bundle: OwnBundle,
  clock: Clock,
): Promise<Bundle> {
  const all = await upstream.publish('jwt', key);
  return bundle.edit((before) => {
    const jwtAuthorities = mergeKeys(before.jwtAuthorities, all, clock.now(), false);
    return jwtAuthorities && { ...before, jwtAuthorities };
  });
}

/** The kind of JWT authority whose keys are published to the whole trust domain through an upstream. */
export function announcedJwt(
  kind: AuthorityKind<JwtSigner>,
  upstream: SteadyUpstream,
  bundle: OwnBundle,
  clock: Clock,
): AuthorityKind<JwtSigner> {
  return {
    ...kind,
    async announce(slot) {
      const key = {
        keyId: slot.id,
        publicKey: Buffer.from(slot.material, 'base64'),
        expiresAt: Math.floor(slot.notAfter / 1000),
        tainted: false,
      };
      await publishUpward(key, upstream, bundle, clock);
    },
  };
}

/**
 * Pure. `bundle` is undefined when nothing changes; `gone` are the roots taken out. A root that was revoked here is not
 * taken again, and one that this server could not leave yet is not said to be tainted yet.
 * @param now milliseconds
 * @param distrusted what is known against a root, by its id
 * @param needed the id of the root that what signs leads to
 */
export function merge(
  before: Bundle,
  state: UpstreamState,
  now: number,
  distrusted: DistrustedRoots['of'],
  needed?: string,
): { bundle: Bundle | undefined; gone: readonly X509Authority[] } {
  const { jwtAuthorities: jwt, witAuthorities: wit } = state;
  // Only one that holds the whole bundle says by its silence that something is revoked.
  const isWhole = jwt !== undefined;
  const theirs = new Map(state.x509Authorities.map((one) => [key(one), one.tainted]));
  const gone = before.x509Authorities.filter((one) => isWhole && one.tainted && !theirs.has(key(one)));
  const kept = before.x509Authorities
    .filter((one) => !gone.includes(one))
    .map((one) =>
      theirs.get(key(one)) && !one.tainted && rootIdOf(one.certificate) !== needed ? { ...one, tainted: true } : one,
    );
  const ours = new Set(before.x509Authorities.map(key));
  // What this server would remove again soon is not taken.
  const isOfUse = ({ certificate }: X509Authority) =>
    bundlePruneAt(parseCertificate(certificate).notAfter) > now && distrusted(rootIdOf(certificate)) !== 'revoked';
  const x509Authorities = [...kept, ...state.x509Authorities.filter((one) => !ours.has(key(one)) && isOfUse(one))];
  const x509Changed =
    x509Authorities.length !== before.x509Authorities.length ||
    x509Authorities.some((one, index) => one !== before.x509Authorities[index]);
  const jwtAuthorities = jwt && mergeKeys(before.jwtAuthorities, jwt, now, true);
  const witAuthorities = wit && mergeKeys(before.witAuthorities, wit, now, true);
  if (!x509Changed && !jwtAuthorities && !witAuthorities) return { bundle: undefined, gone };
  return {
    bundle: {
      ...before,
      x509Authorities,
      ...(jwtAuthorities && { jwtAuthorities }),
      ...(witAuthorities && { witAuthorities }),
    },
    gone,
  };
}

/** Undefined when nothing changes. A tainted key that they have no more is dropped when they hold all. */
function mergeKeys(
  ours: readonly JwtAuthority[],
  theirs: readonly JwtAuthority[],
  now: number,
  isWhole: boolean,
): readonly JwtAuthority[] | undefined {
  const byId = new Map(theirs.map((one) => [one.keyId, one]));
  const held = new Set(ours.map(({ keyId }) => keyId));
  const kept = ours
    .filter(({ keyId, tainted }) => !isWhole || !tainted || byId.has(keyId))
    .map((one) => (byId.get(one.keyId)?.tainted && !one.tainted ? { ...one, tainted: true } : one));
  const isOfUse = ({ expiresAt }: JwtAuthority) => expiresAt === 0 || bundlePruneAt(expiresAt * 1000) > now;
  const merged = [...kept, ...theirs.filter((one) => !held.has(one.keyId) && isOfUse(one))];
  const isSame = merged.length === ours.length && merged.every((one, index) => one === ours[index]);
  return isSame ? undefined : merged;
}

const key = ({ certificate }: X509Authority): string => certificate.toString('base64');
const rootIdOf = (certificate: Buffer): string => authorityId(parseCertificate(certificate));
