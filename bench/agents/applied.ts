/**
 * What one agent has applied, in order, and whether it may have come like that: positions that only rise, nothing twice,
 * nothing changed without having moved on. The checker sees what the agent saw and nothing of the server's.
 */
import type { WorldChange } from '../../agent/cache.ts';

/** One complete group as the agent applied it. */
export interface Applied {
  /** Milliseconds of the clock. */
  readonly at: number;
  readonly logId: string;
  readonly position: number;
  readonly snapshot: boolean;
  /** `ID REVISION CREATED` of each entry. */
  readonly entries: readonly string[];
  readonly removed: readonly string[];
}

/** The record of a change. */
export function applied(change: WorldChange, at: number): Applied {
  return {
    at,
    logId: change.logId,
    position: Number(change.position),
    snapshot: change.snapshot,
    entries: change.entries.map(({ id, revision, createdAt }) => `${id} ${revision} ${createdAt}`),
    removed: change.removedEntryIds,
  };
}

/** What is wrong with a sequence, one sentence each; nothing when all is well. */
export function checkApplied(sequence: readonly Applied[]): string[] {
  const wrong: string[] = [];
  const held = new Map<string, string>();
  let before: Applied | undefined;
  for (const [index, group] of sequence.entries()) {
    const say = (what: string): void => void wrong.push(`group ${index} at position ${group.position}: ${what}`);
    const same = before !== undefined && before.logId === group.logId;
    if (before === undefined && !group.snapshot) say('the first is no snapshot');
    if (before !== undefined && !same && !group.snapshot) say('another log without a snapshot');
    if (same && group.position < before!.position) say(`after position ${before!.position}`);
    const told = group.entries.length + group.removed.length;
    if (same && !group.snapshot && told > 0 && group.position === before!.position) say('changes without moving on');
    if (group.snapshot) held.clear();
    for (const id of group.removed) held.delete(id);
    for (const entry of group.entries) {
      const id = entry.slice(0, entry.indexOf(' '));
      if (held.get(id) === entry) say(`entry ${entry} for the second time`);
      held.set(id, entry);
    }
    before = group;
  }
  return wrong;
}

/** The entries that the sequence leaves an agent with, as `Applied.entries` names them, sorted. */
export function leftBy(sequence: readonly Applied[]): string[] {
  const held = new Map<string, string>();
  for (const group of sequence) {
    if (group.snapshot) held.clear();
    for (const id of group.removed) held.delete(id);
    for (const entry of group.entries) held.set(entry.slice(0, entry.indexOf(' ')), entry);
  }
  return [...held.values()].sort();
}
