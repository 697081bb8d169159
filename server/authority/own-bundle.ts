/**
 * The trust domain's own bundle in the store. Several servers edit it; each edit reads, changes and writes with
 * compare-and-swap, and raises the sequence when something changed (TB-4).
 */
import { Fault } from '../../src/errors.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import type { Bundles } from '../store/store.ts';

export interface OwnBundle {
  /** Applies `change`; undefined means nothing to change. Gives the bundle as stored afterwards. */
  edit(change: (bundle: Bundle) => Bundle | undefined): Promise<Bundle>;
}

const mostTries = 50;

export function ownBundle(bundles: Bundles, trustDomain: TrustDomain, refreshHintSeconds: number): OwnBundle {
  const empty: Bundle = {
    trustDomain,
    x509Authorities: [],
    jwtAuthorities: [],
    witAuthorities: [],
    refreshHint: refreshHintSeconds,
    sequence: 0n,
  };
  return {
    async edit(change) {
      for (let tries = 0; tries < mostTries; tries++) {
        const stored = await bundles.get(trustDomain);
        const before = stored ?? empty;
        const changed = change(before);
        if (!changed && stored) return stored;
        const next = { ...(changed ?? before), sequence: before.sequence + 1n };
        if (await bundles.put(next, stored ? stored.sequence : 'absent')) return next;
      }
      throw new Fault('system/failed', 'the bundle could not be changed: other servers kept changing it first');
    },
  };
}
