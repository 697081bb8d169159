/**
 * The server's services as an agent calls them: messages in and out over one channel, values above it. Nothing here
 * retries or remembers; a refusal arrives as the Fault that src/rpc made of it, its `reason` included.
 */
import { Fault, Status } from '../src/errors.ts';
import type { Channel, Conversation } from '../src/rpc/connect.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { SpiffeId, TrustDomain } from '../src/spiffe/id.ts';
import type { WireBundle } from '../src/wire/bundle.ts';
import { type WireEntry, wholeNumber } from '../src/wire/entry.ts';
import { idFromWire } from '../src/wire/id.ts';
import { entryMask, readBundle } from './authorized.ts';
import type { AgentHoldings, HeldAuthority } from './holdings.ts';
import type { WireDeniedToken } from './revocations.ts';

const agentService = 'spire.api.server.agent.v1.Agent';
const bundleService = 'spire.api.server.bundle.v1.Bundle';
const entryService = 'spire.api.server.entry.v1.Entry';
const svidService = 'spire.api.server.svid.v1.SVID';
const syncService = 'mutual.server.v1.Sync';

/** Milliseconds given to each call that is not a stream. */
const callDeadline = 30_000;

export interface Attested {
  /** DER, leaf first. */
  readonly chain: readonly Buffer[];
  readonly reattestable: boolean;
}

/** A certificate as issued; `hint` and `expires_at` are not needed: the certificate says when it ends. */
export interface Issued {
  readonly id: SpiffeId;
  /** DER, leaf first. */
  readonly chain: readonly Buffer[];
}

/** A JWT-SVID or a WIT-SVID. */
export interface IssuedToken {
  readonly token: string;
  readonly id: SpiffeId;
  /** Unix milliseconds. */
  readonly issuedAt: number;
  readonly expiresAt: number;
}

export interface EntryRevision {
  readonly id: string;
  readonly revision: number;
  readonly createdAt: number;
}

/** One message of mutual.server.v1.Sync/Watch, its entries and bundles still as sent. */
export interface WatchUpdate {
  readonly position: bigint;
  readonly logId: string;
  readonly snapshot: boolean;
  readonly complete: boolean;
  readonly entries: readonly WireEntry[];
  readonly removedEntryIds: readonly string[];
  readonly bundles: readonly WireBundle[];
  readonly removedTrustDomains: readonly string[];
  /** Set where the group tells what is revoked. */
  readonly revocations: boolean;
  readonly crls: readonly Buffer[];
  readonly deniedTokens: readonly WireDeniedToken[];
  /** The latest question that is answered when this group is complete; 0 for none. */
  readonly answer: number;
}

/** The push stream; nothing that is sent on it is waited for: should it be over, its updates say why. */
export interface WatchStream {
  readonly updates: AsyncIterable<WatchUpdate>;
  applied(position: bigint): void;
  /** Names what the agent holds of its trust domain's authorities. */
  holds(holdings: AgentHoldings): void;
  /** Asks whether everything was sent that was committed before; the answer comes with a group (rising ids above 0). */
  ask(id: number): void;
}

export interface Position {
  readonly position: bigint;
  readonly logId: string;
}

export interface ServerApi {
  /** Node attestation: `answer` is asked once for each challenge. */
  attest(
    data: { type: string; payload: Buffer },
    csr: Buffer,
    answer: (challenge: Buffer) => Buffer | Promise<Buffer>,
    signal?: AbortSignal,
  ): Promise<Attested>;
  renew(csr: Buffer): Promise<readonly Buffer[]>;
  postStatus(agentVersion: string): Promise<void>;
  /** One conversation of SyncAuthorizedEntries; `choose` picks which of the listed revisions to fetch. */
  syncEntries(
    choose: (revisions: readonly EntryRevision[]) => readonly string[],
    signal?: AbortSignal,
  ): Promise<{ readonly entries: readonly WireEntry[]; readonly revisions: readonly EntryRevision[] | undefined }>;
  authorizedEntries(): Promise<readonly WireEntry[]>;
  bundle(trustDomain: TrustDomain): Promise<Bundle>;
  /** Undefined when the server has none. */
  federatedBundle(trustDomain: TrustDomain): Promise<Bundle | undefined>;
  /** Results in order; an item that was refused is its Fault. */
  newX509Svids(
    params: readonly { entryId: string; csr: Buffer }[],
    signal?: AbortSignal,
  ): Promise<readonly (Issued | Fault)[]>;
  newJwtSvid(entryId: string, audience: readonly string[]): Promise<IssuedToken>;
  /** Results in order; an item that was refused is its Fault. */
  newWitSvids(
    params: readonly { entryId: string; publicKey: Buffer; algorithm: string }[],
  ): Promise<readonly (IssuedToken | Fault)[]>;
  /** The newest position of the server's change log. Throws `method/unimplemented` on a server without one. */
  position(deadlineMs: number): Promise<Position>;
  /** Opens the push stream from a position (0 and '' for everything). */
  watch(from: Position, signal: AbortSignal): WatchStream;
}

/** The services over one channel. */
export function serverApi(channel: Channel): ServerApi {
  const unary = (
    service: string,
    method: string,
    request: object,
    deadlineMs = callDeadline,
    signal?: AbortSignal,
  ): Promise<any> =>
    channel.unary(service, method, request, signal === undefined ? { deadlineMs } : { deadlineMs, signal });
  return {
    async attest(data, csr, answer, signal) {
      const stream = channel.bidi(agentService, 'AttestAgent', {
        deadlineMs: callDeadline,
        ...(signal === undefined ? {} : { signal }),
      });
      post(stream, { params: { data, params: { csr } } });
      for await (const message of stream.responses as AsyncIterable<any>) {
        if (message.challenge !== undefined && message.challenge !== null && message.step === 'challenge') {
          post(stream, { challenge_response: await answer(message.challenge) });
          continue;
        }
        if (message.result?.svid === undefined || message.result.svid === null) break;
        stream.end();
        return { chain: message.result.svid.cert_chain, reattestable: message.result.reattestable };
      }
      throw new Fault('peer/unavailable', 'the server ended node attestation without an SVID');
    },
    async renew(csr) {
      const response = await unary(agentService, 'RenewAgent', { params: { csr } });
      return response.svid?.cert_chain ?? [];
    },
    async postStatus(agentVersion) {
      await unary(agentService, 'PostStatus', { agent_version: agentVersion });
    },
    syncEntries: (choose, signal) => syncEntries(channel, choose, signal),
    async authorizedEntries() {
      return (await unary(entryService, 'GetAuthorizedEntries', { output_mask: entryMask })).entries;
    },
    async bundle(trustDomain) {
      return readBundle(await unary(bundleService, 'GetBundle', {}), trustDomain);
    },
    async federatedBundle(trustDomain) {
      try {
        return readBundle(await unary(bundleService, 'GetFederatedBundle', { trust_domain: trustDomain }), trustDomain);
      } catch (error) {
        if (error instanceof Fault && error.status === Status.NOT_FOUND) return undefined;
        throw error;
      }
    },
    async newX509Svids(params, signal) {
      const request = { params: params.map(({ entryId, csr }) => ({ entry_id: entryId, csr })) };
      const { results } = await unary(svidService, 'BatchNewX509SVID', request, callDeadline, signal);
      return params.map(({ entryId }, index) => {
        const result = results[index];
        if (result?.svid === undefined || result.svid === null || (result.status?.code ?? 0) !== 0)
          return refused(entryId, result?.status);
        return { id: idFromWire(result.svid.id, 'SPIFFE ID of an issued SVID'), chain: result.svid.cert_chain };
      });
    },
    async newJwtSvid(entryId, audience) {
      const { svid } = await unary(svidService, 'NewJWTSVID', { entry_id: entryId, audience });
      return issuedToken(svid, 'JWT-SVID');
    },
    async newWitSvids(params) {
      const request = {
        params: params.map(({ entryId, publicKey, algorithm }) => ({
          entry_id: entryId,
          public_key: publicKey,
          signing_algorithm: algorithm,
        })),
      };
      const { results } = await unary(svidService, 'BatchNewWITSVID', request);
      return params.map(({ entryId }, index) => {
        const { status, svid } = results[index] ?? {};
        return svid && (status?.code ?? 0) === 0 ? issuedToken(svid, 'WIT-SVID') : refused(entryId, status);
      });
    },
    async position(deadlineMs) {
      const response = await unary(syncService, 'Position', {}, deadlineMs);
      return { position: BigInt(response.position), logId: response.log_id };
    },
    watch(from, signal) {
      const stream = channel.bidi(syncService, 'Watch', { signal });
      post(stream, { start: { position: from.position.toString(), log_id: from.logId } });
      return {
        updates: watchUpdates(stream.responses as AsyncIterable<any>),
        applied: (position) => post(stream, { applied: { position: position.toString() } }),
        holds: (holdings) => post(stream, { holdings: holdingsToWire(holdings) }),
        ask: (id) => post(stream, { ask: { id } }),
      };
    },
  };
}

function issuedToken(svid: any, kind: string): IssuedToken {
  return {
    token: svid?.token ?? '',
    id: idFromWire(svid?.id, `SPIFFE ID of an issued ${kind}`),
    issuedAt: wholeNumber(svid?.issued_at, 'issued_at') * 1000,
    expiresAt: wholeNumber(svid?.expires_at, 'expires_at') * 1000,
  };
}

function holdingsToWire({ bundleSequence, x509, jwt, wit }: AgentHoldings): object {
  const held = ({ id, tainted, inUse }: HeldAuthority): object => ({ authority_id: id, tainted, in_use: inUse });
  return {
    bundle_sequence: bundleSequence.toString(),
    x509_authorities: x509.map(held),
    jwt_authorities: jwt.map(held),
    wit_authorities: wit.map(held),
  };
}

async function* watchUpdates(messages: AsyncIterable<any>): AsyncGenerator<WatchUpdate> {
  for await (const message of messages) {
    yield {
      position: BigInt(message.position),
      logId: message.log_id,
      snapshot: message.snapshot,
      complete: message.complete,
      entries: message.entries,
      removedEntryIds: message.removed_entry_ids,
      bundles: message.bundles,
      removedTrustDomains: message.removed_trust_domains,
      revocations: message.revocations,
      crls: message.crls,
      deniedTokens: message.denied_tokens,
      answer: Number(message.answer),
    };
  }
}

/**
 * SyncAuthorizedEntries: a first answer without revisions is the whole list; otherwise pages of revisions, after which
 * the wanted ids are asked for in requests no longer than the first page, each answered in full.
 */
async function syncEntries(
  channel: Channel,
  choose: (revisions: readonly EntryRevision[]) => readonly string[],
  signal?: AbortSignal,
): ReturnType<ServerApi['syncEntries']> {
  const stream = channel.bidi(entryService, 'SyncAuthorizedEntries', {
    deadlineMs: callDeadline,
    ...(signal === undefined ? {} : { signal }),
  });
  const messages = (stream.responses as AsyncIterable<any>)[Symbol.asyncIterator]();
  const next = async (): Promise<any> => {
    const { value, done } = await messages.next();
    if (done) throw new Fault('peer/unavailable', 'the server ended the synchronisation of entries half way');
    return value;
  };
  post(stream, { output_mask: entryMask });
  let message = await next();
  if (message.entry_revisions.length === 0) {
    stream.end();
    return { entries: message.entries, revisions: undefined };
  }
  const pageSize: number = message.entry_revisions.length;
  const revisions: EntryRevision[] = [];
  for (;;) {
    if (message.entries.length > 0)
      throw new Fault('peer/unavailable', 'the server mixed entries and revisions in one message');
    for (const revision of message.entry_revisions) {
      revisions.push({
        id: revision.id,
        revision: wholeNumber(revision.revision_number, 'revision_number'),
        createdAt: wholeNumber(revision.created_at, 'created_at'),
      });
    }
    if (!message.more) break;
    message = await next();
  }
  const wanted = [...choose(revisions)].sort();
  const entries: WireEntry[] = [];
  for (let start = 0; start < wanted.length; start += pageSize) {
    post(stream, { ids: wanted.slice(start, start + pageSize) });
    for (;;) {
      message = await next();
      if (message.entry_revisions.length > 0)
        throw new Fault('peer/unavailable', 'the server mixed entries and revisions in one phase');
      entries.push(...message.entries);
      if (!message.more) break;
    }
  }
  stream.end();
  return { entries, revisions };
}

/** Sends without waiting: a message that cannot be sent means that the call is over, and its responses say why. */
function post(stream: Conversation, message: object): void {
  stream.send(message).catch(() => {});
}

function refused(entryId: string, status: { code: number; message: string } | null | undefined): Fault {
  const missing = status?.code === Status.NOT_FOUND;
  return new Fault(
    missing ? 'thing/missing' : 'peer/unavailable',
    status?.message || `no SVID was issued for entry ${entryId}`,
  );
}
