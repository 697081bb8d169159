/**
 * One Fault, one gRPC status, both ways. Only `message` and `hint` travel, and as details what programs act upon: `reason`
 * for agents, `info` for brokers, and when to come again. What is not a Fault is a defect of ours and travels as "internal error".
 */
import type { IncomingHttpHeaders } from 'node:http2';
import type { ServiceError } from '@grpc/grpc-js';
import {
  asFault,
  type DenialReason,
  Fault,
  type FaultCode,
  type FaultExtras,
  Status,
  type StatusCode,
} from '../errors.ts';
import { messageCodec } from './load.ts';

/** The trailer that holds a google.rpc.Status. */
export const detailsTrailer = 'grpc-status-details-bin';
const deniedType = 'spire.api.types.PermissionDeniedDetails';
const infoType = 'google.rpc.ErrorInfo';
const retryType = 'google.rpc.RetryInfo';
const anyPrefix = 'type.googleapis.com/';
/** Texts travel in a header, where each character may take nine bytes and 64 KB is the end. */
const longestText = 4096;
/** Nobody is kept away for longer by a hint, ms. */
const longestRetry = 5 * 60_000;

/** Which code a status read from the wire becomes, where no code of ours is told apart. */
const codeOf: Readonly<Record<StatusCode, FaultCode>> = {
  [Status.OK]: 'peer/failed',
  [Status.CANCELLED]: 'call/cancelled',
  [Status.UNKNOWN]: 'peer/failed',
  [Status.INVALID_ARGUMENT]: 'input/invalid',
  [Status.DEADLINE_EXCEEDED]: 'call/late',
  [Status.NOT_FOUND]: 'thing/missing',
  [Status.ALREADY_EXISTS]: 'thing/exists',
  [Status.PERMISSION_DENIED]: 'caller/denied',
  [Status.RESOURCE_EXHAUSTED]: 'limit/exceeded',
  [Status.FAILED_PRECONDITION]: 'state/refused',
  [Status.ABORTED]: 'peer/failed',
  [Status.OUT_OF_RANGE]: 'input/invalid',
  [Status.UNIMPLEMENTED]: 'method/unimplemented',
  [Status.INTERNAL]: 'peer/failed',
  [Status.UNAVAILABLE]: 'peer/unavailable',
  [Status.DATA_LOSS]: 'peer/failed',
  [Status.UNAUTHENTICATED]: 'caller/unauthenticated',
};

const reasons: ReadonlySet<string> = new Set<DenialReason>([
  'AGENT_EXPIRED',
  'AGENT_NOT_ATTESTED',
  'AGENT_NOT_ACTIVE',
  'AGENT_BANNED',
  'AGENT_MUST_REATTEST',
]);

/** The text a peer is told: what failed, and after a full stop what to do. Whole characters, cut at 4096. */
export function peerText(fault: Fault): string {
  const text = fault.hint === undefined ? fault.message : `${fault.message}. ${fault.hint}`;
  return text.slice(0, longestText).toWellFormed();
}

/** Anything thrown as `spire.api.types.Status`: the outcome of one item of a batch. */
export function itemStatus(thrown: unknown): { code: number; message: string } {
  const fault = asFault(thrown);
  return { code: fault.status, message: peerText(fault) };
}

/** The outcome of an item that worked. */
export const itemOk = { code: 0, message: 'OK' } as const;

/** A Fault as the trailers in which it travels. */
export function trailersOf(fault: Fault): Record<string, string | number> {
  const details = peerText(fault);
  const trailers: Record<string, string | number> = { 'grpc-status': fault.status, 'grpc-message': encodeURI(details) };
  const encoded = detailsOf(fault, details);
  if (encoded !== undefined) trailers[detailsTrailer] = encoded.toString('base64');
  return trailers;
}

/** The google.rpc.Status of a fault that says more than its text. */
export function detailsOf(fault: Fault, message: string): Buffer | undefined {
  const found: object[] = [];
  if (fault.reason !== undefined) found.push(detail(deniedType, { reason: fault.reason }));
  if (fault.info !== undefined) found.push(detail(infoType, fault.info));
  if (fault.retryAfterMs !== undefined) found.push(detail(retryType, { retry_delay: duration(fault.retryAfterMs) }));
  if (found.length === 0) return undefined;
  return messageCodec('google.rpc.Status').encode({ code: fault.status, message, details: found });
}

/** How a call ended, as it travels. */
export interface CallStatus {
  /** A number of google.rpc.Code, or any other. */
  readonly code: number;
  readonly message: string;
  /** A google.rpc.Status, serialised. */
  readonly details?: Buffer | undefined;
}

/** What a call that failed is to its caller. A reason that cannot be read is as good as none. */
export function faultOfStatus(ended: CallStatus): Fault {
  const status = (ended.code in codeOf ? ended.code : Status.UNKNOWN) as StatusCode;
  return new Fault(codeOf[status], ended.message, { status, cause: ended, ...detailsIn(ended.details) });
}

/** What was thrown for a call, by `serviceError` too, as its caller gets it. */
export function faultOfCall(error: unknown): Fault {
  if (!isServiceError(error)) return asFault(error);
  const details = error.metadata?.get(detailsTrailer)[0];
  const found = details instanceof Buffer ? { details } : {};
  return faultOfStatus({ code: error.code, message: error.details, ...found });
}

/** The status in trailers; undefined when there is none. */
export function statusIn(trailers: IncomingHttpHeaders): CallStatus | undefined {
  const code = trailers['grpc-status'];
  if (typeof code !== 'string') return undefined;
  const message = trailers['grpc-message'];
  const details = trailers[detailsTrailer];
  return {
    code: /^\d+$/.test(code) ? Number(code) : Status.UNKNOWN,
    message: typeof message === 'string' ? decoded(message) : '',
    // Several are joined by commas; the first counts.
    details: typeof details === 'string' ? Buffer.from(details.replace(/,.*$/s, ''), 'base64') : undefined,
  };
}

/** A text as it was before it was percent-encoded; one that cannot be decoded is left as it came. */
function decoded(text: string): string {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' && 'details' in error;
}

type Details = Pick<FaultExtras, 'reason' | 'info' | 'retryAfterMs'>;

/** What the details say to us. A peer may put anything there; the status itself stands. */
function detailsIn(bytes: Buffer | undefined): Details {
  const found: Details = {};
  if (bytes === undefined) return found;
  try {
    for (const { type_url, value } of messageCodec('google.rpc.Status').decode(bytes).details) {
      if (type_url === `${anyPrefix}${deniedType}`) {
        const { reason } = messageCodec(deniedType).decode(value);
        if (reasons.has(reason)) found.reason ??= reason;
      } else if (type_url === `${anyPrefix}${infoType}`) {
        found.info ??= messageCodec(infoType).decode(value);
      } else if (type_url === `${anyPrefix}${retryType}`) {
        const { seconds = 0, nanos = 0 } = messageCodec(retryType).decode(value).retry_delay ?? {};
        found.retryAfterMs ??= Math.min(Math.max(Number(seconds) * 1000 + nanos / 1e6, 0), longestRetry);
      }
    }
  } catch {
    // What was read before it broke off counts.
  }
  return found;
}

function detail(type: string, message: object): { type_url: string; value: Buffer } {
  return { type_url: `${anyPrefix}${type}`, value: messageCodec(type).encode(message) };
}

function duration(ms: number): { seconds: number; nanos: number } {
  return { seconds: Math.floor(ms / 1000), nanos: Math.round((ms % 1000) * 1e6) };
}
