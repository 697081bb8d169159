/** Revoking through the admin socket, and waiting until the agents hold it: shared by `svid revoke` and by `--revoke`. */
import { Fault } from '../src/errors.ts';
import { type Caller, type Message, withCaller } from './caller.ts';
import { printDeadline } from './duration.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { serverAdmin } from './socket-choice.ts';
import { count, table } from './table.ts';

export const revocationService = 'mutual.server.v1.Revocation';

/** A RevokeRequest: one target. */
export type RevokeRequest = Readonly<Record<string, string | boolean>>;

export interface Covered {
  readonly response: Message;
  readonly coverage: Message;
  /** Milliseconds from the command to the last agent, or to giving up. */
  readonly ms: number;
}

/** Revokes, then waits until every agent that follows a server holds the lists, for at most `patience` seconds. */
export async function revokeAndCover(
  requests: readonly RevokeRequest[],
  socket: string | undefined,
  patience: number,
  ports: Ports,
): Promise<Covered> {
  const began = ports.clock.now();
  return await withCaller(serverAdmin, socket, ports, async (caller) => {
    const responses: Message[] = [];
    for (const request of requests) responses.push(await caller.call(revocationService, 'Revoke', request));
    const last = responses.at(-1)!;
    const response = { ...last, revoked: responses.flatMap(({ revoked }) => revoked) };
    const coverage = await cover(caller, last.position, patience, ports);
    return { response, coverage, ms: ports.clock.now() - began };
  });
}

/**
 * Shuts something out and revokes what it was issued: before, while it is known whose tokens are meant, and again after,
 * for what was issued meanwhile. What has nothing to revoke is shut out all the same.
 */
export async function revokeAround<T>(
  requests: readonly RevokeRequest[],
  socket: string | undefined,
  ports: Ports,
  act: () => Promise<T>,
): Promise<{ result: T; covered: Covered }> {
  const ask = (caller: Caller, request: RevokeRequest): Promise<Message> =>
    caller.call(revocationService, 'Revoke', request).catch((error: unknown) => {
      if (!(error instanceof Fault) || error.code !== 'thing/missing') throw error;
    });
  const began = ports.clock.now();
  const before = await withCaller(serverAdmin, socket, ports, (caller) =>
    Promise.all(requests.map((request) => ask(caller, request))),
  );
  const result = await act();
  return await withCaller(serverAdmin, socket, ports, async (caller) => {
    const after: Message[] = [];
    for (const request of requests) after.push(await ask(caller, request));
    const told = [...before, ...after].filter((one) => one !== undefined);
    const nothing = { revoked: [], position: '0', missing_authority_ids: [], records: true };
    const response = { ...(told.at(-1) ?? nothing), revoked: onceEach(told.flatMap(({ revoked }) => revoked)) };
    const coverage = await cover(caller, response.position, 30, ports);
    return { result, covered: { response, coverage, ms: ports.clock.now() - began } };
  });
}

function onceEach(revoked: readonly Message[]): Message[] {
  return [...new Map([...revoked].reverse().map((one) => [`${one.kind} ${one.value}`, one])).values()].reverse();
}

async function cover(caller: Caller, position: string, patience: number, ports: Ports): Promise<Message> {
  let coverage: Message = { watching: 0, holding: 0, elsewhere: 0, polling: 0, servers: 1, answered: 0, behind: [] };
  try {
    const options = { deadlineMs: patience * 1000 };
    for await (const now of caller.stream(revocationService, 'Coverage', { position }, options)) {
      coverage = now;
      if (ports.terminal) ports.err(`${now.holding} of ${count(now.watching, 'agent holds', 'agents hold')} it\n`);
    }
  } catch (error) {
    // Patience has ended, which is an answer too.
    if (!(error instanceof Fault) || (error.code !== 'call/late' && !/in time/.test(error.message))) throw error;
  }
  return coverage;
}

/** Prints what was revoked and who holds it; the exit code is 1 when an agent that can be reached does not. */
export function printCovered({ response, coverage, ms }: Covered, output: 'pretty' | 'json', ports: Ports): number {
  const behind = coverage.watching - coverage.holding;
  if (output === 'json') {
    ports.out(jsonLine({ ...response, coverage, milliseconds: ms }));
    return behind === 0 ? 0 : 1;
  }
  ports.out(revokedTable(response.revoked, ports));
  ports.out(
    `\n${coverage.holding} of ${count(coverage.watching, 'agent', 'agents')} that can be told ${coverage.holding === 1 ? 'holds' : 'hold'} it, ${ms} ms after the command\n`,
  );
  for (const id of coverage.behind) ports.out(`${id} does not hold it\n`);
  if (coverage.polling > 0) {
    const takes = coverage.polling === 1 ? 'polls and takes' : 'poll and take';
    ports.out(
      `${count(coverage.polling, 'agent', 'agents')} only ${takes} no lists; what they serve ends with its SVIDs\n`,
    );
  }
  if (coverage.elsewhere > 0) {
    ports.out(
      `${count(coverage.elsewhere, 'attested agent is', 'attested agents are')} away; what they serve ends with its SVIDs\n`,
    );
  }
  if (coverage.answered < coverage.servers) {
    const silent = coverage.servers - coverage.answered;
    ports.out(`${silent} of ${coverage.servers} servers did not answer: away, or of an older version\n`);
  }
  for (const authority of response.missing_authority_ids) {
    ports.out(`Authority ${authority} has no list yet that says so: its server is away or of an older version\n`);
  }
  if (!response.records) {
    ports.out('X.509-SVIDs of workloads are not recorded (revocation.record): revoke each of them by its serial\n');
  }
  return behind === 0 ? 0 : 1;
}

export function revokedTable(revoked: readonly Message[], ports: Ports): string {
  if (revoked.length === 0) return 'Nothing is revoked\n';
  const what = { serial: 'X.509-SVID', jti: 'JWT-SVID', tokens: 'JWT-SVIDs' } as Record<string, string>;
  return table(
    ports,
    ['REVOKED', 'SERIAL, JTI OR SUBJECT', 'SPIFFE ID', 'AT', 'UNTIL', ''],
    revoked.map((one) => [
      what[one.kind] ?? one.kind,
      one.kind === 'serial' ? `0x${BigInt(one.value).toString(16)}` : one.value,
      one.spiffe_id || '-',
      new Date(Number(one.revoked_at)).toISOString(),
      printDeadline(Number(one.expires_at), ports.clock.now()),
      one.already ? 'already' : '',
    ]),
  );
}
