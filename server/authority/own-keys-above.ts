/**
 * Keys of our own that sign tokens, as the server above knows them. One that was tainted or revoked there is believed
 * nowhere else in the tree: another takes its place at once, as in a rotation by force.
 */
import type { Log } from '../../src/log.ts';
import type { KeyKind, UpstreamState } from '../upstream/upstream.ts';
import type { Authority } from './authority.ts';
import type { Seen } from './last-seen.ts';

export interface OwnKeysAbove {
  /**
   * Leaves what is not trusted above. Called at each look, with what was there at the one before. Gives the `kid`s of
   * those that are missing and not left yet, which have to be looked for again, and what kept them from being left.
   */
  heed(state: UpstreamState, before: Seen): Promise<{ readonly missing: readonly string[]; readonly error?: unknown }>;
}

// biome-ignore lint/suspicious/noExplicitAny: what they sign with does not matter here
type TokenAuthorities = Readonly<Record<KeyKind, Authority<any> | undefined>>;

export function ownKeysAbove(authorities: TokenAuthorities, log: Log): OwnKeysAbove {
  /** Those that one look did not find: a server above that is a moment behind the others may not know them yet. */
  let suspected: ReadonlySet<string> = new Set();

  return {
    async heed({ jwtAuthorities, witAuthorities }, before) {
      const missing = new Set<string>();
      let failure: { error: unknown } | undefined;
      for (const [kind, theirs] of [
        ['jwt', jwtAuthorities],
        ['wit', witAuthorities],
      ] as const) {
        const authority = authorities[kind];
        // One that says nothing of this kind has taken none back.
        if (authority === undefined || theirs === undefined) continue;
        const { old, prepared, active } = authority.state();
        for (const slot of [old, prepared, active]) {
          if (slot === undefined) continue;
          const above = theirs.find(({ keyId }) => keyId === slot.id);
          const isMissing = above === undefined && before.keys.includes(slot.id);
          if (isMissing) missing.add(slot.id);
          const how = above?.tainted ? 'tainted' : isMissing && suspected.has(slot.id) ? 'revoked' : undefined;
          if (how === undefined || (how === 'tainted' && slot.tainted)) continue;
          try {
            await authority.leave(slot.id, how);
            missing.delete(slot.id);
            log.warn({ authority: slot.id, kind }, `left a key that was ${how} above`);
          } catch (error) {
            failure = { error };
          }
        }
      }
      suspected = new Set(missing);
      return { missing: [...missing], ...failure };
    },
  };
}
