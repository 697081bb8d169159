/**
 * What an upstream authority holds, taken into the own bundle: new roots and keys are added, tainted ones marked, and
 * those that it has no more are taken out, roots after a look at which they are tainted. What signs below a tainted root is
 * replaced at once.
 */
import { authorityId, parseCertificate } from '../../src/crypto/certificate.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Bundle, JwtAuthority, X509Authority } from '../../src/spiffe/bundle.ts';
import { bundlePruneAt } from '../../src/spiffe/lifetime.ts';
import type { SteadyUpstream } from '../upstream/steady.ts';
import type { KeyKind, UpstreamState } from '../upstream/upstream.ts';
import type { Authority, AuthorityKind } from './authority.ts';
import type { DistrustedRoots } from './distrust.ts';
import type { LastSeen, Seen } from './last-seen.ts';
import type { OwnBundle } from './own-bundle.ts';
import type { OwnKeysAbove } from './own-keys-above.ts';
import type { UpstreamRoots } from './upstream-roots.ts';
import type { X509Signer } from './x509.ts';

export interface FollowPorts {
  readonly distrusted: DistrustedRoots;
  readonly roots: UpstreamRoots;
  readonly lastSeen: LastSeen;
  readonly ownKeys: OwnKeysAbove;
  /** The `kid`s that this server signs with, now or next. */
  readonly signsWith: () => readonly string[];
  readonly clock: Clock;
  readonly log: Log;
}

/** Takes over what the upstream holds now. Called every few seconds. */
export async function followUpstream(
  upstream: SteadyUpstream,
  x509: Authority<X509Signer>,
  bundle: OwnBundle,
  { distrusted, roots, lastSeen, ownKeys, signsWith, clock, log }: FollowPorts,
): Promise<void> {
  // What is known here counts also while the upstream is away; and that there is nothing better to sign below does not keep
  // what it holds from being taken over.
  const heeded = await failureOf(roots.heed());
  const state = await upstream.state();
  if (state === undefined) {
    if (heeded) throw heeded.error;
    return;
  }
  const now = seenIn(state);
  const before = await lastSeen.read();
  // Only one that holds the whole bundle says by its silence that something is revoked.
  // What signs has to be left before its key is taken out with what else is gone.
  const ours = await ownKeys.heed(state, before);
  const missing = state.jwtAuthorities === undefined ? nothingMissing : missingFrom(now, before, signsWith());
  const tainted = state.x509Authorities.filter((one) => one.tainted).map(({ certificate }) => rootIdOf(certificate));
  // First of all: whoever learns of a taint here asks this server for what leads elsewhere, once.
  const left = await failureOf(leave(x509, [...tainted, ...missing.roots], log));
  const needed = x509.state().active?.upstream?.id;
  let gone: readonly X509Authority[] = [];
  await bundle.edit((before) => {
    const merged = merge(before, state, clock.now(), distrusted.of, { needed, missing });
    gone = merged.gone;
    return merged.bundle;
  });
  for (const { certificate } of gone) {
    const id = rootIdOf(certificate);
    log.warn({ upstreamAuthority: id }, 'root taken out of the bundle, as upstream');
    await x509.forgetRoot(id);
  }
  // A root or a key that cannot be left yet is not forgotten: it is looked for again.
  await lastSeen.write({
    roots: [...now.roots, ...missing.roots.filter((id) => id === needed)],
    keys: [...now.keys, ...ours.missing],
  });
  if (left) throw left.error;
  if (ours.error) throw ours.error;
  // Once more, with what the bundle says now.
  await roots.heed();
}

const failureOf = (work: Promise<unknown>): Promise<{ error: unknown } | undefined> =>
  work.then(
    () => undefined,
    (error: unknown) => ({ error }),
  );

const nothingMissing: Seen = { roots: [], keys: [] };

function seenIn({ x509Authorities, jwtAuthorities = [], witAuthorities = [] }: UpstreamState): Seen {
  return {
    roots: x509Authorities.map(({ certificate }) => rootIdOf(certificate)),
    keys: [...jwtAuthorities, ...witAuthorities].map(({ keyId }) => keyId),
  };
}

/** @param own keys without which tokens of this server would hold nowhere: until others sign, they stay */
const missingFrom = (now: Seen, before: Seen, own: readonly string[]): Seen => ({
  roots: before.roots.filter((id) => !now.roots.includes(id)),
  keys: before.keys.filter((id) => !now.keys.includes(id) && !own.includes(id)),
});

/** Replaces what signs below a root that is tainted. @param tainted ids of roots */
async function leave(x509: Authority<X509Signer>, tainted: readonly string[], log: Log): Promise<void> {
  const above = x509.state().active?.upstream;
  if (!above || !tainted.includes(above.id)) return;
  if (await x509.leaveRoot(above.id)) log.warn({ upstreamAuthority: above.id }, 'left a tainted upstream authority');
}

/** Where a bundle has the keys of a kind. */
const fields = { jwt: 'jwtAuthorities', wit: 'witAuthorities' } as const;

/** Has a key published to the whole trust domain through an upstream, and takes over the keys of all others. */
export async function publishUpward(
  kind: KeyKind,
  key: JwtAuthority,
  upstream: SteadyUpstream,
  bundle: OwnBundle,
  clock: Clock,
): Promise<void> {
  const all = await upstream.publish(kind, key);
  if (all === undefined) return;
  await bundle.edit((before) => {
    const merged = mergeKeys(before[fields[kind]], all, clock.now());
    return merged && { ...before, [fields[kind]]: merged };
  });
}

/** The kind of authority, JWT or WIT, whose keys are published to the whole trust domain through an upstream. */
export function announced<Signer>(
  of: KeyKind,
  kind: AuthorityKind<Signer>,
  upstream: SteadyUpstream,
  bundle: OwnBundle,
  clock: Clock,
): AuthorityKind<Signer> {
  return {
    ...kind,
    async announce(slot) {
      const key = {
        keyId: slot.id,
        publicKey: Buffer.from(slot.material, 'base64'),
        expiresAt: Math.floor(slot.notAfter / 1000),
        tainted: false,
      };
      await publishUpward(of, key, upstream, bundle, clock);
    },
  };
}

/**
 * Pure. `bundle` is undefined when nothing changes; `gone` are the roots taken out. A root that was revoked here is not
 * taken again, and one that this server could not leave yet is not said to be tainted yet.
 * @param now milliseconds
 * @param distrusted what is known against a root, by its id
 * @param known `needed`: the id of the root that what signs leads to; `missing`: what the upstream had and has no more
 */
export function merge(
  before: Bundle,
  state: UpstreamState,
  now: number,
  distrusted: DistrustedRoots['of'],
  { needed, missing = nothingMissing }: { readonly needed?: string | undefined; readonly missing?: Seen } = {},
): { bundle: Bundle | undefined; gone: readonly X509Authority[] } {
  const { jwtAuthorities: jwt, witAuthorities: wit } = state;
  // Only one that holds the whole bundle says by its silence that something is revoked.
  const isWhole = jwt !== undefined;
  const theirs = new Map(state.x509Authorities.map((one) => [key(one), one.tainted]));
  const gone = before.x509Authorities.filter((one) => isWhole && one.tainted && !theirs.has(key(one)));
  const kept = before.x509Authorities
    .filter((one) => !gone.includes(one))
    .map((one) => {
      if (one.tainted) return one;
      const { notAfter } = parseCertificate(one.certificate);
      const id = rootIdOf(one.certificate);
      // One that has ended is missing since it was put away, and will be here.
      const isTainted = theirs.get(key(one)) || (missing.roots.includes(id) && notAfter > now);
      return isTainted && id !== needed ? { ...one, tainted: true } : one;
    });
  const ours = new Set(before.x509Authorities.map(key));
  // What this server would remove again soon is not taken.
  const isOfUse = ({ certificate }: X509Authority) =>
    bundlePruneAt(parseCertificate(certificate).notAfter) > now && distrusted(rootIdOf(certificate)) !== 'revoked';
  const x509Authorities = [...kept, ...state.x509Authorities.filter((one) => !ours.has(key(one)) && isOfUse(one))];
  const x509Changed =
    x509Authorities.length !== before.x509Authorities.length ||
    x509Authorities.some((one, index) => one !== before.x509Authorities[index]);
  const jwtAuthorities = jwt && mergeKeys(before.jwtAuthorities, jwt, now, missing.keys);
  const witAuthorities = wit && mergeKeys(before.witAuthorities, wit, now, missing.keys);
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

/**
 * Undefined when nothing changes.
 * @param missing those that they had and have no more, where they hold all; then a tainted one that they have not is dropped too
 */
function mergeKeys(
  ours: readonly JwtAuthority[],
  theirs: readonly JwtAuthority[],
  now: number,
  missing?: readonly string[],
): readonly JwtAuthority[] | undefined {
  const byId = new Map(theirs.map((one) => [one.keyId, one]));
  const held = new Set(ours.map(({ keyId }) => keyId));
  const kept = ours
    .filter(({ keyId, tainted }) => byId.has(keyId) || !missing || !(tainted || missing.includes(keyId)))
    .map((one) => (byId.get(one.keyId)?.tainted && !one.tainted ? { ...one, tainted: true } : one));
  const isOfUse = ({ expiresAt }: JwtAuthority) => expiresAt === 0 || bundlePruneAt(expiresAt * 1000) > now;
  const merged = [...kept, ...[...byId.values()].filter((one) => !held.has(one.keyId) && isOfUse(one))];
  const isSame = merged.length === ours.length && merged.every((one, index) => one === ours[index]);
  return isSame ? undefined : merged;
}

const key = ({ certificate }: X509Authority): string => certificate.toString('base64');
const rootIdOf = (certificate: Buffer): string => authorityId(parseCertificate(certificate));
