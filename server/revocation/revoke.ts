/** Taking back what was issued: by serial or jti, or everything that was issued for a SPIFFE ID, an entry or an agent. */
import { Fault, quote } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { authorizedEntries } from '../entries/authorized.ts';
import type { FollowedWorld } from '../entries/world.ts';
import type { Change, Revocation, Revoked, Store } from '../store/store.ts';
import type { Recorder } from './recorder.ts';

export type Target =
  | { readonly by: 'serial'; readonly serial: string; readonly unrecorded: boolean }
  | { readonly by: 'jti'; readonly jti: string }
  | { readonly by: 'subject'; readonly id: SpiffeId }
  | { readonly by: 'entry'; readonly entryId: string }
  | { readonly by: 'agent'; readonly id: SpiffeId };

export interface Revoker {
  /** Gives what is revoked now, and what was already. Throws `thing/missing` when nothing is known of the target. */
  revoke(target: Target): Promise<readonly Revoked[]>;
  /**
   * Revokes what was issued for an agent or an entry around an act that shuts it out: before it, while it is known whose
   * tokens are meant, and again after it, for what was issued meanwhile.
   */
  withdrawing<T>(targets: readonly Target[], act: () => Promise<T>): Promise<T>;
  /** Follows the log: what another server revoked concerns what this one has issued and not recorded yet. */
  heard(change: Change): void;
}

export interface RevokerPorts {
  readonly store: Store;
  readonly world: FollowedWorld;
  readonly recorder: Recorder;
  readonly clock: Clock;
  readonly log: Log;
  /** Milliseconds: nothing issued now outlives this. */
  readonly longest: number;
  /** Whether the SVIDs of workloads are recorded. */
  readonly recorded: boolean;
}

/** How long servers do over what another one has revoked, milliseconds: far longer than the log takes to be read. */
const scopeLasts = 10 * 60_000;

export function revoker({ store, world, recorder, clock, log, longest, recorded }: RevokerPorts): Revoker {
  const one = (kind: Revocation['kind'], value: string, expiresAt: number, more: Partial<Revocation> = {}) => ({
    kind,
    value,
    revokedAt: clock.now(),
    expiresAt,
    authority: '',
    spiffeId: '',
    ...more,
  });

  async function bySerial(serial: string, unrecorded: boolean): Promise<readonly Revoked[]> {
    const known = world.revocations.get(`serial:${serial}`);
    if (known) return [{ revocation: known, already: true }];
    await recorder.flush();
    const now = clock.now();
    const issued = (await store.revocations.find(serial, now)) ?? agentSvid(serial);
    if (issued) return await store.revocations.add([one('serial', serial, issued.expiresAt, issued)]);
    if (unrecorded) return await store.revocations.add([one('serial', serial, now + longest)]);
    throw new Fault(
      'thing/missing',
      `no unexpired X.509-SVID with serial ${quote(serial)} is recorded: expected the serial of one that this trust domain issued`,
      {
        hint: `Compare with "openssl x509 -noout -serial". ${recorded ? 'One that has expired needs no revocation; one' : 'One'} that was issued unrecorded is revoked with --unrecorded.`,
      },
    );
  }
  function agentSvid(serial: string): { expiresAt: number; spiffeId: string } | undefined {
    for (const node of world.nodes.values()) {
      if (node.serial === serial) return { expiresAt: node.expiresAt * 1000, spiffeId: node.id };
      if (node.nextSerial === serial) return { expiresAt: node.nextExpiresAt * 1000, spiffeId: node.id };
    }
    return undefined;
  }

  async function everything(
    of: 'subject' | 'entry' | 'agent',
    value: string,
    subjects: readonly SpiffeId[],
    more: readonly Revocation[] = [],
  ): Promise<readonly Revoked[]> {
    await recorder.flush();
    const now = clock.now();
    const tokens = subjects.map((id) => one('tokens', id, now + longest, { spiffeId: id }));
    const marks = await store.revocations.add([one(of, value, now + scopeLasts), ...tokens, ...more]);
    const serials = await store.revocations.addIssued(of, value, now);
    return [...serials, ...marks.filter(({ revocation }) => revocation.kind !== of)];
  }

  async function revoke(target: Target): Promise<readonly Revoked[]> {
    switch (target.by) {
      case 'serial':
        return await bySerial(target.serial, target.unrecorded);
      case 'jti':
        return await store.revocations.add([one('jti', target.jti, clock.now() + longest)]);
      case 'subject':
        return await everything('subject', target.id, [target.id]);
      case 'entry': {
        const entry = world.entries.get(target.entryId);
        const done = await everything('entry', target.entryId, entry ? [entry.spiffeId] : []);
        if (entry) return done;
        // It was deleted: what was issued says whose it was.
        const gone = [...new Set(done.flatMap(({ revocation }) => revocation.spiffeId as SpiffeId))];
        if (gone.length === 0) {
          throw new Fault('thing/missing', `no entry ${quote(target.entryId)} is known, nor anything issued for it`, {
            hint: 'See "mutual entry list". Nothing of a deleted entry is known when its SVIDs have expired.',
          });
        }
        const expiresAt = clock.now() + longest;
        return [
          ...done,
          ...(await store.revocations.add(gone.map((id) => one('tokens', id, expiresAt, { spiffeId: id })))),
        ];
      }
      case 'agent': {
        const node = world.nodes.get(target.id);
        const own: Revocation[] = [];
        for (const [serial, at] of node
          ? ([
              [node.serial, node.expiresAt],
              [node.nextSerial, node.nextExpiresAt],
            ] as const)
          : [])
          if (serial !== '') own.push(one('serial', serial, at * 1000, { spiffeId: target.id }));
        const subjects = node ? [...new Set(authorizedEntries(world, node).map(({ spiffeId }) => spiffeId))] : [];
        const done = await everything('agent', target.id, subjects);
        const known = new Set(done.map(({ revocation }) => revocation.value));
        const rest = await store.revocations.add(own.filter(({ value }) => !known.has(value)));
        if (!node && done.length + rest.length === 0) {
          throw new Fault('thing/missing', `no agent ${quote(target.id)} is known, nor anything issued to it`, {
            hint: 'See "mutual agent list".',
          });
        }
        return [...rest, ...done];
      }
    }
  }

  /** Nothing to revoke is no fault of what shuts out. */
  const revokeIfAny = (target: Target): Promise<unknown> =>
    revoke(target).catch((error: unknown) => {
      if (!(error instanceof Fault) || error.code !== 'thing/missing') throw error;
    });

  return {
    async withdrawing(targets, act) {
      for (const target of targets) await revokeIfAny(target);
      const result = await act();
      for (const target of targets) await revokeIfAny(target);
      await world.reach();
      log.warn({ targets }, 'SVIDs revoked with what they were issued for');
      return result;
    },
    async revoke(target) {
      const done = await revoke(target);
      await world.reach();
      const fresh = done.filter(({ already }) => !already).length;
      log.warn({ ...target, revoked: fresh, already: done.length - fresh }, 'SVIDs revoked');
      return done;
    },
    heard({ kind, ...change }) {
      if (kind !== 'revocation' || !('revocation' in change) || !change.revocation) return;
      const { kind: of, value, revokedAt } = change.revocation;
      if (of !== 'subject' && of !== 'entry' && of !== 'agent') return;
      void recorder
        .flush()
        .then(() => store.revocations.addIssued(of, value, revokedAt))
        .catch((error: unknown) => log.error({ error }, 'what was issued lately could not be revoked'));
    },
  };
}
