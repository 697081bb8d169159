/**
 * What only an operator may know: whether the server has an entry that would match, but for another node. An agent is never
 * told, by a yes or no either, since whoever had taken one over could feel out what runs on other nodes by asking.
 */
import { type Admin, adminOf } from './admin.ts';
import { type Message, withCaller } from './caller.ts';
import { selectorTexts, wireId } from './entry-text.ts';
import type { Ports } from './ports.ts';
import { serverAdmin } from './socket-choice.ts';

/** An entry that matches and that the agent does not give the process. */
export interface Elsewhere {
  readonly id: string;
  readonly spiffe_id: string;
  readonly parent_id: string;
  readonly why: string;
}

export interface OnServer {
  readonly entries: readonly Elsewhere[];
  /** The cause, when it is another than the agent could see. */
  readonly instead: { readonly cause: string; readonly summary: string; readonly advice: string } | undefined;
}

/** What an agent calls its own want of entries: only this can be explained better by the server. */
const unknowing = new Set(['no-entries', 'no-entry', 'selectors-lacking', 'server-unreachable', 'agent-not-ready']);
/** Links from an entry up to its node. */
const deepest = 32;

/** @param found the agent's answer */
export function elsewhereOnServer(found: Message, given: string, ports: Ports): Promise<OnServer> {
  return withCaller({ ...serverAdmin, flag: '--server-admin-socket' }, given, ports, async (caller) => {
    const admin = adminOf(caller);
    const node = await nodeOf(admin, found.agent_id);
    if (node?.banned === true) return { entries: [], instead: banned(found.agent_id) };
    if (found.selectors.length === 0) return { entries: [], instead: undefined };
    const by_selectors = { selectors: found.selectors, match: 'MATCH_SUBSET' };
    const matching = await admin.all('entry', 'ListEntries', { filter: { by_selectors } }, 'entries');
    const here = new Set(found.matching.map(({ id }: Message) => id));
    const entries: Elsewhere[] = [];
    for (const entry of matching) {
      if (here.has(entry.id)) continue;
      const why = await whyNotHere(admin, entry, node, ports.clock.now());
      entries.push({ id: entry.id, spiffe_id: wireId(entry.spiffe_id), parent_id: wireId(entry.parent_id), why });
    }
    const first = entries.find(({ why }) => why !== expiredThere) ?? entries[0];
    return { entries, instead: first && unknowing.has(found.cause) ? better(first, found) : undefined };
  });
}

const otherParent = 'its parent is not this agent';
const notYetHere = 'the agent has not got it yet';
const expiredThere = 'it has expired';

async function whyNotHere(admin: Admin, entry: Message, node: Message, now: number): Promise<string> {
  if (Number(entry.expires_at) > 0 && Number(entry.expires_at) * 1000 <= now) return expiredThere;
  return (await isBelow(admin, entry.parent_id, node)) ? notYetHere : otherParent;
}

/** Whether what hangs under `parent` belongs to the node, by itself, by an alias or by entries in between. */
async function isBelow(admin: Admin, parent: Message, node: Message): Promise<boolean> {
  if (node === undefined) return false;
  const held = new Set(selectorTexts(node.selectors));
  const seen = new Set<string>();
  let level = [parent];
  for (let depth = 0; depth < deepest && level.length > 0; depth++) {
    const above: Message[] = [];
    for (const id of level) {
      const name = wireId(id);
      if (name === wireId(node.id)) return true;
      if (seen.has(name)) continue;
      seen.add(name);
      for (const entry of await admin.all('entry', 'ListEntries', { filter: { by_spiffe_id: id } }, 'entries')) {
        const isAlias = entry.parent_id.path === '/spire/server';
        if (isAlias && selectorTexts(entry.selectors).every((selector) => held.has(selector))) return true;
        if (!isAlias) above.push(entry.parent_id);
      }
    }
    level = above;
  }
  return false;
}

async function nodeOf(admin: Admin, agentId: string): Promise<Message | undefined> {
  const parts = /^spiffe:\/\/([^/]+)(\/.*)$/.exec(agentId);
  if (parts === null) return undefined;
  try {
    return await admin.call('agent', 'GetAgent', { id: { trust_domain: parts[1], path: parts[2] } });
  } catch {
    // Evicted meanwhile: nothing belongs to it.
    return undefined;
  }
}

const banned = (agentId: string) => ({
  cause: 'agent-banned',
  summary: `the server has banned this agent (${agentId})`,
  advice: `Lift the ban with mutual agent evict --spiffe-id ${agentId}; then it may attest again.`,
});

function better(entry: Elsewhere, found: Message): OnServer['instead'] {
  if (entry.why === expiredThere)
    return {
      cause: 'entry-expired',
      summary: `the entry for ${entry.spiffe_id} matches, but it has expired`,
      advice: `Give it more time: mutual entry update --entry-id ${entry.id} ..., or create it anew.`,
    };
  if (entry.why === notYetHere)
    return {
      cause: 'agent-behind',
      summary: `the agent is behind its server: it has not got the entry for ${entry.spiffe_id}${found.outage === '' ? '' : `, since ${found.outage}`}`,
      advice: 'See that the agent reaches the server: mutual agent status.',
    };
  return {
    cause: 'other-parent',
    summary: `the entry for ${entry.spiffe_id} that matches hangs under ${entry.parent_id}, which is not this agent (${found.agent_id})`,
    advice: `Give it the right parent: mutual entry update --entry-id ${entry.id} --parent-id ${found.agent_id} ...`,
  };
}
