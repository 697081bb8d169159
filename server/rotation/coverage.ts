/**
 * How far the agents have followed a rotation. Each server knows what the agents at its own streams hold; while a
 * rotation is under way it keeps that in the journal, a few bits an agent, in pieces of which only the changed ones are
 * written. So any server can count all agents, also those whose server has gone.
 */
import { createHash } from 'node:crypto';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import type { Journal, StoredNode } from '../store/store.ts';
import type { Holding, Holdings } from './holdings.ts';
import { goalOf, type Rotation, staysBelow, wanted } from './rotation.ts';

/** What is known of one agent. */
export interface Stand {
  /** It trusts every authority that comes. */
  readonly holdsNext: boolean;
  /** It knows every authority that goes as tainted, or not at all, and serves nothing that one of them signed. */
  readonly leftOld: boolean;
  readonly polling: boolean;
  readonly live: boolean;
  /** Milliseconds at which it came to stand so, by the clock of its server. */
  readonly at: number;
}

/** What one server has of its agents, as one document holds it. */
interface Piece {
  readonly goal: string;
  /** Flags in the order of `Stand`, 1, 2, 4 and 8, then `at`. */
  readonly agents: Readonly<Record<string, readonly [flags: number, at: number]>>;
}

export interface Coverage {
  /** Agents that can be counted: neither banned nor with an SVID that has ended. */
  readonly agents: number;
  readonly covered: number;
  readonly polling: number;
  readonly expired: number;
  readonly uncovered: readonly Uncovered[];
  /** Of the uncovered ones, those with an open stream or a recent poll. */
  readonly behind: number;
}

export interface Uncovered {
  readonly id: SpiffeId;
  readonly why: 'offline' | 'behind' | 'unknown';
  /** Milliseconds; 0 for never. */
  readonly heardAt: number;
}

const pieces = 32;
const prefix = 'coverage@';

/** What an agent's word means for a rotation. */
export function standOf(rotation: Rotation, { held, polling, live, heardAt }: Holding): Stand {
  const parts = wanted(rotation);
  return {
    // What an agent trusts is the root, where the authority is none.
    holdsNext: parts.every(({ next, nextRoot }) => next !== undefined && held.has(nextRoot ?? next)),
    leftOld: parts.every((part) => {
      if (staysBelow(rotation, part)) return true;
      const old = held.get(part.fromRoot ?? part.from);
      return old === undefined || (old.tainted && !old.inUse);
    }),
    polling,
    live,
    at: heardAt,
  };
}

/** Counts. From the taint on it matters that an agent has left the old authorities, before that it holds the new ones. */
export function countCoverage(
  rotation: Rotation,
  nodes: Iterable<StoredNode>,
  stands: ReadonlyMap<string, Stand>,
  now: number,
): Coverage {
  const leaving = rotation.step === 'taint' || rotation.step === 'revoke' || rotation.step === 'done';
  const uncovered: Uncovered[] = [];
  let [agents, covered, polling, expired, behind] = [0, 0, 0, 0, 0];
  for (const node of nodes) {
    if (node.serial === '') continue;
    if (Math.max(node.expiresAt, node.nextExpiresAt) * 1000 <= now) {
      expired += 1;
      continue;
    }
    agents += 1;
    const stand = stands.get(node.id);
    if (stand?.holdsNext && (!leaving || hasLeft(stand, now))) {
      covered += 1;
      if (stand.polling) polling += 1;
      continue;
    }
    const why = stand === undefined ? 'unknown' : stand.live ? 'behind' : 'offline';
    if (why === 'behind') behind += 1;
    uncovered.push({ id: node.id, why, heardAt: stand?.at ?? 0 });
  }
  return { agents, covered, polling, expired, uncovered, behind };
}

/**
 * Milliseconds after which an agent that polls, and has renewed its own SVID, has done so for its workloads: SPIRE's
 * replaces what a tainted authority has signed every five seconds.
 */
const pollSettles = 10_000;

const hasLeft = ({ leftOld, polling, at }: Stand, now: number): boolean =>
  leftOld && (!polling || now - at >= pollSettles);

export interface SharedStands {
  /** Writes what this server's agents hold now, as far as it has changed. */
  share(rotation: Rotation): Promise<void>;
  /** What all servers have written. */
  read(rotation: Rotation): Promise<ReadonlyMap<string, Stand>>;
}

export function sharedStands(journal: Journal, own: Holdings, serverName: string): SharedStands {
  const mine = `${prefix}${serverName}@`;
  /** As stored. A piece is read before it is first written, since it may be from before a restart. */
  let stored: Map<string, { version: number; piece: Piece }> | undefined;

  async function load(): Promise<Map<string, { version: number; piece: Piece }>> {
    const found = await journal.list(mine);
    return new Map(found.map(({ name, version, text }) => [name, { version, piece: readPiece(text) }]));
  }

  return {
    async share(rotation) {
      stored ??= await load();
      const goal = goalOf(rotation);
      const next = new Map<string, Record<string, readonly [number, number]>>();
      for (const [name, { piece }] of stored) {
        // Agents that went before this server was started are remembered, and known not to be here.
        const kept = Object.entries(piece.goal === goal ? piece.agents : {}).map(
          ([id, [flags, at]]) => [id, [flags & ~8, at] as const] as const,
        );
        next.set(name, Object.fromEntries(kept));
      }
      for (const agent of own.agents()) {
        const holding = own.of(agent);
        if (holding === undefined) continue;
        const name = `${mine}${pieceOf(agent)}`;
        const piece = next.get(name) ?? {};
        const flags = flagsOf(standOf(rotation, holding));
        const before = stored.get(name)?.piece;
        const [oldFlags, oldAt] = (before?.goal === goal ? before.agents[agent] : undefined) ?? [];
        piece[agent] = [flags, flags === oldFlags && oldAt !== undefined ? oldAt : holding.heardAt];
        next.set(name, piece);
      }
      for (const [name, agents] of next) {
        const before = stored.get(name);
        const piece: Piece = { goal, agents };
        if (before !== undefined && JSON.stringify(before.piece) === JSON.stringify(piece)) continue;
        if (await journal.put(name, JSON.stringify(piece), before?.version ?? 0))
          stored.set(name, { version: (before?.version ?? 0) + 1, piece });
        // The answer to an earlier write was lost, or an older process of this server is not gone yet.
        else {
          stored = undefined;
          return;
        }
      }
    },
    async read(rotation) {
      const goal = goalOf(rotation);
      const stands = new Map<string, Stand>();
      for (const { text } of await journal.list(prefix)) {
        const piece = readPiece(text);
        if (piece.goal !== goal) continue;
        for (const [id, [flags, at]] of Object.entries(piece.agents)) {
          // An agent that went from one server to another is known at both: the later word counts.
          if ((stands.get(id)?.at ?? -1) < at) stands.set(id, standFrom(flags, at));
        }
      }
      return stands;
    },
  };
}

const flagsOf = ({ holdsNext, leftOld, polling, live }: Stand): number =>
  Number(holdsNext) + 2 * Number(leftOld) + 4 * Number(polling) + 8 * Number(live);

const standFrom = (flags: number, at: number): Stand => ({
  holdsNext: (flags & 1) !== 0,
  leftOld: (flags & 2) !== 0,
  polling: (flags & 4) !== 0,
  live: (flags & 8) !== 0,
  at,
});

const pieceOf = (agent: string): number => createHash('sha256').update(agent).digest()[0]! % pieces;

/** One that cannot be read says nothing: what is missing is written anew. */
function readPiece(text: string): Piece {
  try {
    const piece = JSON.parse(text) as Piece;
    if (typeof piece.goal === 'string' && typeof piece.agents === 'object') return piece;
  } catch {}
  return { goal: '', agents: {} };
}
