/** Gathers what `diagnose` decides by: a process is attested as at a call, and the agent makes sure that it is not behind. */
import { readFile, stat } from 'node:fs/promises';
import { asFault } from '../src/errors.ts';
import { linux } from '../src/rpc/unix-peer.ts';
import type { Clock } from '../src/run/clock.ts';
import { matches, type Selector, selectorSet } from '../src/spiffe/selector.ts';
import { type AuthorizedEntry, isForWorkloads } from './authorized.ts';
import type { Cache } from './cache.ts';
import type { Attestation, Facts, Match } from './diagnose.ts';
import { nearest } from './nearest.ts';
import type { Refusal } from './refusals.ts';
import type { SyncStatus } from './sync.ts';
import { within } from './workload/attest.ts';
import type { WorkloadMethod } from './workload/methods.ts';

export interface ExplainPorts {
  readonly clock: Clock;
  methods(): readonly WorkloadMethod[];
  readonly cache: Cache;
  /** The path of this agent's Workload API. */
  readonly socket: string;
  agentId(): string | undefined;
  sync(): SyncStatus;
  catchUp(ms: number): Promise<void>;
  /** Newest first. */
  refusals(): readonly Refusal[];
}

/** Milliseconds for the agent to make sure that it is not behind, as for a caller without identities. */
const patience = 1_000;
const mostNear = 5;
const mostMatching = 50;

/** Everything about a process (`pid` above 0), or about selectors. */
export async function gatherFacts(pid: number, given: readonly Selector[], ports: ExplainPorts): Promise<Facts> {
  const { cache, clock } = ports;
  const started = pid === 0 ? '' : linux().startTimeOf(pid);
  const [attestations, elsewhere] = await Promise.all([
    pid === 0 || started === undefined ? [] : attestAll(pid, ports),
    pid === 0 || started === undefined ? undefined : otherSocketOf(pid, ports.socket),
    ports.catchUp(patience),
  ]);
  // Asked last: another process may have been given the number meanwhile.
  const exists = started !== undefined && (pid === 0 || linux().startTimeOf(pid) === started);
  const selectors = pid === 0 ? selectorSet(given) : selectorSet(attestations.flatMap((one) => one.selectors));
  const held = new Set(selectors);
  const { lastSuccess, outage } = ports.sync();
  return {
    now: clock.now(),
    pid,
    exists,
    elsewhere,
    socket: ports.socket,
    agentId: ports.agentId(),
    ready: lastSuccess > 0 || cache.entries.size > 0,
    lastSync: lastSuccess,
    outage: outage?.message,
    entryCount: [...cache.entries.values()].filter(isForWorkloads).length,
    attestations,
    selectors,
    matching: matching(held, cache, clock.now(), outage?.message),
    nearest: nearest(cache.entries.values(), held, mostNear),
    refusals: pid === 0 ? [] : ports.refusals().filter((one) => one.pid === pid),
  };
}

function attestAll(pid: number, { methods, clock }: ExplainPorts): Promise<Attestation[]> {
  return Promise.all(
    methods().map(async (method): Promise<Attestation> => {
      try {
        return { name: method.name, selectors: await within(clock, method, pid), error: undefined };
      } catch (error) {
        const { message, detail } = asFault(error);
        // The admin socket is the operator's: what goes to the log may be told here.
        return { name: method.name, selectors: [], error: detail === undefined ? message : `${message}: ${detail}` };
      }
    }),
  );
}

function matching(held: ReadonlySet<Selector>, cache: Cache, now: number, outage: string | undefined): Match[] {
  const found: Match[] = [];
  const add = (entry: AuthorizedEntry, obstacle: Match['obstacle']): void => {
    if (found.length < mostMatching && matches(entry.selectors, held)) found.push({ entry, obstacle });
  };
  for (const entry of cache.entries.values()) add(entry, obstacleOf(entry, cache, now, outage));
  for (const entry of cache.lapsed.values()) add(entry, lapsed(entry));
  return found;
}

function obstacleOf(entry: AuthorizedEntry, cache: Cache, now: number, outage: string | undefined): Match['obstacle'] {
  if (!isForWorkloads(entry)) {
    const text = entry.storeSvid
      ? 'its SVIDs go to a store (storeSVID) and never to a process'
      : 'it names a node and not a workload';
    return { kind: 'store', text };
  }
  if (entry.expiresAt > 0 && entry.expiresAt * 1000 <= now) return lapsed(entry);
  if (cache.svidFor(entry) !== undefined) return undefined;
  const refusal = cache.refusal(entry.id)?.message ?? outage;
  // Nothing is in the way of one that nobody has asked for yet: it is signed when somebody does.
  return refusal === undefined ? undefined : { kind: 'no-svid', text: `no SVID could be got for it: ${refusal}` };
}

const lapsed = (entry: AuthorizedEntry): Match['obstacle'] => ({
  kind: 'expired',
  text: `it expired at ${new Date(entry.expiresAt * 1000).toISOString().replace('.000Z', 'Z')}`,
});

const variable = 'SPIFFE_ENDPOINT_SOCKET=';

/**
 * Where the process was told to look for the Workload API, if that is known to lead elsewhere. Two names of one socket (a
 * container sees it under another path) are one. What may not be read is not known.
 */
async function otherSocketOf(pid: number, socket: string): Promise<string | undefined> {
  try {
    const environment = await readFile(`/proc/${pid}/environ`, 'utf8');
    const address = environment
      .split('\0')
      .find((line) => line.startsWith(variable))
      ?.slice(variable.length)
      .slice(0, 300);
    if (address === undefined || address === '') return undefined;
    const path = address.replace(/^unix:(\/\/)?/, '');
    if (!path.startsWith('/')) return address;
    const ours = await stat(socket);
    const theirs = await stat(`/proc/${pid}/root${path}`).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    return theirs?.dev === ours.dev && theirs.ino === ours.ino ? undefined : address;
  } catch {
    return undefined;
  }
}
