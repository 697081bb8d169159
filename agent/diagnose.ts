/**
 * From what is known of a process and of the agent to the one cause why the process got nothing: the first rule that
 * applies, in the order in which a person would rule things out. Pure.
 */
import type { Selector } from '../src/spiffe/selector.ts';
import type { AuthorizedEntry } from './authorized.ts';
import type { Near } from './nearest.ts';
import type { Refusal } from './refusals.ts';

export interface Attestation {
  readonly name: string;
  readonly selectors: readonly Selector[];
  /** Why it could tell nothing. */
  readonly error: string | undefined;
}

/** An entry whose selectors the process has. */
export interface Match {
  readonly entry: AuthorizedEntry;
  /** Why it gives nothing now. `store`: it never gives a process anything. */
  readonly obstacle: { readonly kind: 'expired' | 'store' | 'no-svid'; readonly text: string } | undefined;
}

export interface Facts {
  readonly now: number;
  /** 0 when only selectors are known. */
  readonly pid: number;
  /** False when there is no such process. */
  readonly exists: boolean;
  /** The Workload API address in the process's environment, when it leads to another socket than this agent's. */
  readonly elsewhere: string | undefined;
  readonly socket: string;
  readonly agentId: string | undefined;
  /** Whether the agent has ever known its entries. */
  readonly ready: boolean;
  /** Unix milliseconds; 0 for never. */
  readonly lastSync: number;
  readonly outage: string | undefined;
  /** Entries of workloads. */
  readonly entryCount: number;
  readonly attestations: readonly Attestation[];
  readonly selectors: readonly Selector[];
  readonly matching: readonly Match[];
  readonly nearest: readonly Near[];
  /** Of this process, newest first. */
  readonly refusals: readonly Refusal[];
}

export interface Diagnosis {
  /** Stable; a script may look at it. */
  readonly cause: string;
  readonly summary: string;
  /** Empty when there is nothing to do. */
  readonly advice: string;
}

type Rule = (facts: Facts) => Diagnosis | undefined;

const who = ({ pid }: Facts): string => (pid === 0 ? 'a process with these selectors' : `process ${pid}`);
const names = (entries: readonly AuthorizedEntry[]): string =>
  `${entries
    .slice(0, 3)
    .map(({ spiffeId }) => spiffeId)
    .join(', ')}${entries.length > 3 ? ` and ${entries.length - 3} more` : ''}`;
const ago = (facts: Facts, at: number): string => `${Math.max(0, Math.round((facts.now - at) / 1000))} s ago`;
const parentOf = (facts: Facts): string => facts.agentId ?? 'AGENT-ID';
const withObstacle = (facts: Facts, kind: string): Match | undefined =>
  facts.matching.find(({ obstacle }) => obstacle?.kind === kind);

const notReady: Rule = (facts) =>
  facts.ready
    ? undefined
    : {
        cause: 'agent-not-ready',
        summary: `the agent has never got its entries from the server${facts.outage === undefined ? '' : `: ${facts.outage}`}`,
        advice: 'See that the server runs and that this node can reach it.',
      };

const gone: Rule = (facts) => {
  if (facts.exists) return undefined;
  const [last] = facts.refusals;
  return {
    cause: 'process-gone',
    summary: `there is no process ${facts.pid} that the agent can see${last === undefined ? '' : `; its last call, ${ago(facts, last.at)}, was refused: ${last.message}`}`,
    advice: 'Ask while the process runs, or give what it would have with --selector.',
  };
};

const otherSocket: Rule = (facts) =>
  facts.elsewhere === undefined || facts.refusals.length > 0
    ? undefined
    : {
        cause: 'other-socket',
        summary: `${who(facts)} looks for the Workload API at ${facts.elsewhere}, which is not the socket of this agent`,
        advice: `Start it with SPIFFE_ENDPOINT_SOCKET=unix://${facts.socket}`,
      };

const header: Rule = (facts) =>
  facts.refusals[0]?.message.startsWith('security header missing') === true
    ? {
        cause: 'header-missing',
        summary: `the last call of ${who(facts)}, ${ago(facts, facts.refusals[0].at)}, had no security header "workload.spiffe.io: true"`,
        advice: facts.refusals[0].hint,
      }
    : undefined;

const noSvid: Rule = (facts) => {
  const match = withObstacle(facts, 'no-svid');
  return (
    match && {
      cause: 'svid-missing',
      summary: `${who(facts)} is entitled to ${match.entry.spiffeId}, but ${match.obstacle!.text}`,
      advice:
        facts.outage === undefined ? "See the agent's log." : 'See that the server runs and can be reached from here.',
    }
  );
};

const served: Rule = (facts) => {
  const serving = facts.matching.filter(({ obstacle }) => obstacle === undefined);
  if (serving.length === 0) return undefined;
  const entitled = `${who(facts)} is entitled to ${names(serving.map(({ entry }) => entry))}`;
  // What was refused for want of an entry has been put right meanwhile.
  const refused = facts.refusals.find(({ message }) => !message.includes('no registration entry'));
  return refused === undefined
    ? { cause: 'served', summary: `nothing is wrong: ${entitled}`, advice: '' }
    : {
        cause: 'call-refused',
        summary: `${entitled}, but its call ${ago(facts, refused.at)} was refused: ${refused.message}`,
        advice: refused.hint,
      };
};

const expired: Rule = (facts) => {
  const match = withObstacle(facts, 'expired');
  return (
    match && {
      cause: 'entry-expired',
      summary: `the entry for ${match.entry.spiffeId} matches ${who(facts)}, but ${match.obstacle!.text}`,
      advice: `Give it more time: mutual entry update --entry-id ${match.entry.id} ..., or create it anew.`,
    }
  );
};

const forStore: Rule = (facts) => {
  const match = withObstacle(facts, 'store');
  return (
    match && {
      cause: 'entry-not-for-processes',
      summary: `the entry for ${match.entry.spiffeId} matches ${who(facts)}, but ${match.obstacle!.text}`,
      advice: 'Create an entry of its own for the process.',
    }
  );
};

const attestorFailed: Rule = (facts) => {
  const failed = facts.attestations.filter(({ error }) => error !== undefined);
  const [first] = failed;
  if (first === undefined) return undefined;
  const concerned = failed.find(({ name }) =>
    facts.nearest.some(({ lacking }) => lacking.every((selector) => selector.startsWith(`${name}:`))),
  );
  if (concerned === undefined && facts.selectors.length > 0) return undefined;
  const { name, error } = concerned ?? first;
  return {
    cause: 'attestor-failed',
    summary: `the attestor ${name} could not tell what ${who(facts)} is: ${error}`,
    advice: `Entries with ${name}: selectors cannot match until it can; see workloadAttestors.${name} in the agent's options.`,
  };
};

const behind: Rule = (facts) =>
  facts.outage === undefined
    ? undefined
    : {
        cause: 'server-unreachable',
        summary: `no entry that the agent knows matches ${who(facts)}, and it cannot follow its server (up to date ${facts.lastSync === 0 ? 'before its start' : ago(facts, facts.lastSync)}): ${facts.outage}`,
        advice: 'See that the server runs and can be reached; an entry made meanwhile is not known here.',
      };

const noEntries: Rule = (facts) =>
  facts.entryCount > 0
    ? undefined
    : {
        cause: 'no-entries',
        summary: `no registration entry of a workload belongs to this agent (${facts.agentId ?? 'which has no ID yet'})`,
        advice: `Create one: mutual entry create --parent-id ${parentOf(facts)} --spiffe-id ID --selector ${facts.selectors[0] ?? 'TYPE:VALUE'}`,
      };

const lacking: Rule = (facts) => {
  const near = facts.nearest.find(({ shared }) => shared > 0);
  return (
    near && {
      cause: 'selectors-lacking',
      summary: `${who(facts)} lacks ${near.lacking.join(' and ')}, which the nearest entry (${near.entry.spiffeId}) asks for`,
      advice: `If the process is right: mutual entry update --entry-id ${near.entry.id} ...; else see how it is started.`,
    }
  );
};

const noEntry = (facts: Facts): Diagnosis => ({
  cause: 'no-entry',
  summary: `none of the ${facts.entryCount} entries of this agent has a selector that ${who(facts)} has`,
  advice: `Create one: mutual entry create --parent-id ${parentOf(facts)} --spiffe-id ID --selector ${facts.selectors.find((one) => one.startsWith('unix:uid:')) ?? facts.selectors[0] ?? 'TYPE:VALUE'}`,
});

const rules: readonly Rule[] = [
  notReady,
  gone,
  otherSocket,
  header,
  served,
  noSvid,
  expired,
  forStore,
  attestorFailed,
  behind,
  noEntries,
  lacking,
];

/** The first cause that applies. */
export function diagnose(facts: Facts): Diagnosis {
  for (const rule of rules) {
    const found = rule(facts);
    if (found !== undefined) return found;
  }
  return noEntry(facts);
}
