/**
 * Operators who change entries through three servers, and what must be true of every agent when all is over: it holds what
 * is stored, has seen each change once and in order, and was never sent away.
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { leftBy } from '../../../bench/agents/applied.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import { sleep } from '../../../src/run/clock.ts';
import { agentPorts, fleetSize, type ThreeServers } from './three-servers.ts';
import { until } from './until.ts';

/** Changes that are made one after the other. */
export interface Load {
  /** How many were acknowledged so far. */
  made(): number;
  /** Ends it; gives how many were acknowledged. */
  stop(): Promise<number>;
}

export interface CheckedFleet {
  /**
   * Creates, changes and deletes entries through the servers given, one change after the other, until told to stop or the
   * test ends.
   * @param pauseMs between two changes, milliseconds; none unless told
   */
  load(t: TestContext, servers: readonly number[], pauseMs?: number): Load;
  /**
   * Waits until every agent is level with the database and has its SVIDs; then checks all that each has seen.
   * @param deadlineMs how long that may take, milliseconds; 90,000 unless told
   */
  settled(what: string, deadlineMs?: number): Promise<void>;
}

const { clock, random } = agentPorts;
const entryApi = 'spire.api.server.entry.v1.Entry';

/** What is changed is changed through these servers from now on, or nothing can be said of what agents must hold. */
export function checkedFleet({ postgres, database, cluster, fleet }: ThreeServers): CheckedFleet {
  /** What each agent must hold in the end, by agent: entry id to revision. Only what was acknowledged is in it. */
  const wanted = new Map<string, Map<string, number>>();
  /** Entries whose last change may or may not be stored: the server went away before it answered. */
  const unsure = new Set<string>();

  /** Calls one server as its operator. */
  // biome-ignore lint/suspicious/noExplicitAny: a message
  const call = async (server: number, service: string, method: string, request: object): Promise<any> => {
    const channel = connectUnix(cluster.servers[server]!.adminSocket);
    try {
      return await channel.unary(service, method, request, { deadlineMs: 60_000 });
    } finally {
      channel.close();
    }
  };

  /** One change through a server; whether it was made. What is not acknowledged stays in `unsure`. */
  async function change(turn: number, server: number): Promise<boolean> {
    const agent = fleet.agents[Math.floor(random.unit() * fleet.agents.length)]!;
    const mine = wanted.get(agent.id) ?? new Map<string, number>();
    wanted.set(agent.id, mine);
    const [td, ...path] = agent.id.slice('spiffe://'.length).split('/');
    const own = { trust_domain: td, path: `/${path.join('/')}` };
    const some = [...mine.keys()].filter((id) => !unsure.has(id)).at(-1);
    const entry = {
      id: turn % 3 === 0 || some === undefined ? random.uuid() : some,
      spiffe_id: { trust_domain: td, path: `/load/${random.uuid()}` },
      parent_id: own,
      selectors: [{ type: 'unix', value: 'uid:0' }],
    };
    const isNew = entry.id !== some;
    unsure.add(entry.id);
    if (isNew || turn % 3 === 1) {
      const { results } = await call(server, entryApi, isNew ? 'BatchCreateEntry' : 'BatchUpdateEntry', {
        entries: [entry],
      });
      const [{ status, entry: stored }] = results;
      if (status.code !== 0) return false;
      mine.set(entry.id, Number(stored.revision_number));
    } else {
      const { results } = await call(server, entryApi, 'BatchDeleteEntry', { ids: [entry.id] });
      if (results[0].status.code !== 0) return false;
      mine.delete(entry.id);
    }
    unsure.delete(entry.id);
    return true;
  }

  function load(t: TestContext, servers: readonly number[], pauseMs = 0): Load {
    let over = false;
    let made = 0;
    const work = (async () => {
      for (let turn = 0; !over; turn += 1) {
        try {
          if (await change(turn, servers[turn % servers.length]!)) made += 1;
        } catch {
          // What was not acknowledged is not promised: it is left alone from here on.
          await sleep(clock, 50);
        }
        if (pauseMs > 0) await sleep(clock, pauseMs);
      }
    })();
    const stop = async (): Promise<number> => {
      over = true;
      await work;
      return made;
    };
    t.after(stop);
    return { made: () => made, stop };
  }

  async function storedByAgent(): Promise<Map<string, string[]>> {
    const { rows } = await postgres.query('select id, parent_id from entries', database);
    const byParent = new Map<string, string[]>();
    for (const { id, parent_id } of rows) byParent.set(parent_id, [...(byParent.get(parent_id) ?? []), id]);
    return byParent;
  }

  async function settled(what: string, deadlineMs = 90_000): Promise<void> {
    const { rows: heads } = await postgres.query('select position from log_head', database);
    const end = Number(heads[0].position);
    let late: string[] = [];
    await until(`${what}: agents are level`, deadlineMs, async () => {
      await Promise.all(fleet.agents.map((agent) => agent.catchUp(60_000)));
      late = fleet.agents.flatMap((agent) => {
        const { outage, position } = agent.status();
        if (outage === undefined && position >= end && agent.svids >= agent.entries) return [];
        return [`${agent.id} at ${position} of ${end}, ${agent.svids} SVIDs for ${agent.entries}: ${outage?.message}`];
      });
      return late.length === 0;
    }).catch((error: Error) => assert.fail(`${error.message}: ${late.length}, such as ${late[0]}`));
    assert.deepEqual(fleet.wrong(), [], 'no gap and no double');
    const stored = await storedByAgent();
    for (const agent of fleet.agents) {
      assert.equal(agent.attestations, 1, `${agent.id} attested once`);
      assert.equal(agent.svids, agent.entries, `${agent.id} has an SVID for each entry`);
      assert.equal(agent.applied.filter(({ snapshot }) => snapshot).length, 1, `${agent.id} took one snapshot`);
      const held = new Map(leftBy(agent.applied).map((one) => one.split(' ') as [string, string]));
      for (const [id, revision] of wanted.get(agent.id) ?? [])
        if (!unsure.has(id)) assert.equal(Number(held.get(id)), revision, `${agent.id} holds ${id} as acknowledged`);
      assert.deepEqual(
        [...held.keys()].sort(),
        (stored.get(agent.id) ?? []).sort(),
        `${agent.id} holds what is stored, and nothing else`,
      );
    }
    const { rows: nodes } = await postgres.query('select count(*)::int as n from nodes', database);
    assert.equal(nodes[0].n, fleetSize);
  }

  return { load, settled };
}
