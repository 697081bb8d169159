/**
 * Every refusal of the system, in one table: a stable code, the gRPC status it becomes, and the exit code of a command.
 * A Fault carries two texts. `message` may be shown to whoever asked; `detail` is for the operator's log only.
 */

/** gRPC status codes (google.rpc.Code), the ones the SPIFFE and SPIRE contracts name. */
export const Status = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type StatusCode = (typeof Status)[keyof typeof Status];

/** spire.api.types.PermissionDeniedDetails.Reason: what an agent is told beside PERMISSION_DENIED. */
export type DenialReason =
  | 'AGENT_EXPIRED'
  | 'AGENT_NOT_ATTESTED'
  | 'AGENT_NOT_ACTIVE'
  | 'AGENT_BANNED'
  | 'AGENT_MUST_REATTEST';

/** google.rpc.ErrorInfo: why a call failed, for programs. */
export interface ErrorInfo {
  readonly reason: string;
  /** Who defines the reason, such as `spiffe.io`. */
  readonly domain: string;
  /** What it is about. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** All codes. `exit`: 1 the work failed, 2 the command or its configuration was wrong. */
export const faults = {
  'config/invalid': {
    status: Status.INVALID_ARGUMENT,
    exit: 2,
    means: 'A flag, variable or configuration file is wrong.',
  },
  'usage/invalid': {
    status: Status.INVALID_ARGUMENT,
    exit: 2,
    means: 'A command was called with arguments it does not take.',
  },
  'input/invalid': { status: Status.INVALID_ARGUMENT, exit: 1, means: 'A value given by a caller is malformed.' },
  'der/invalid': { status: Status.INVALID_ARGUMENT, exit: 1, means: 'Bytes are not strict DER of the expected shape.' },
  'id/invalid': {
    status: Status.INVALID_ARGUMENT,
    exit: 1,
    means: 'A SPIFFE ID or trust domain name breaks the SPIFFE-ID standard.',
  },
  'svid/invalid': { status: Status.INVALID_ARGUMENT, exit: 1, means: 'An SVID does not validate.' },
  'bundle/invalid': { status: Status.INVALID_ARGUMENT, exit: 1, means: 'A trust bundle cannot be used.' },
  'caller/denied': {
    status: Status.PERMISSION_DENIED,
    exit: 1,
    means: 'The caller may not call this method or has no such identity.',
  },
  'caller/unauthenticated': { status: Status.UNAUTHENTICATED, exit: 1, means: 'The caller could not be identified.' },
  'thing/missing': { status: Status.NOT_FOUND, exit: 1, means: 'The named thing does not exist.' },
  'thing/exists': { status: Status.ALREADY_EXISTS, exit: 1, means: 'The thing exists already.' },
  'state/refused': {
    status: Status.FAILED_PRECONDITION,
    exit: 1,
    means: 'The system is not in a state that allows this.',
  },
  'limit/exceeded': {
    status: Status.RESOURCE_EXHAUSTED,
    exit: 1,
    means: 'A limit on rate, size or number was exceeded.',
  },
  'peer/unavailable': {
    status: Status.UNAVAILABLE,
    exit: 1,
    means: 'Another program could not be reached or is not ready.',
  },
  'peer/untrusted': {
    status: Status.UNAVAILABLE,
    exit: 1,
    means: 'The other end of a connection did not prove the expected identity.',
  },
  'method/unimplemented': { status: Status.UNIMPLEMENTED, exit: 1, means: 'The method is not offered here.' },
  'data/corrupt': { status: Status.DATA_LOSS, exit: 1, means: 'Stored data is not what this program wrote.' },
  'data/foreign': {
    status: Status.FAILED_PRECONDITION,
    exit: 1,
    means: 'Stored data belongs to another trust domain or a newer version.',
  },
  'system/failed': {
    status: Status.INTERNAL,
    exit: 1,
    means: 'Something of ours failed; the log of the program says what.',
  },
  'call/cancelled': { status: Status.CANCELLED, exit: 1, means: 'The caller went away or gave up before the answer.' },
  'call/late': {
    status: Status.DEADLINE_EXCEEDED,
    exit: 1,
    means: 'The answer did not come before the deadline of the call.',
  },
  'peer/failed': {
    status: Status.INTERNAL,
    exit: 1,
    means: 'Another program answered that it failed; its own log says why.',
  },
  'upstream/unavailable': {
    status: Status.UNAVAILABLE,
    exit: 1,
    means: 'The upstream authority cannot be used now, or has not answered yet.',
  },
  'upstream/refused': {
    status: Status.FAILED_PRECONDITION,
    exit: 1,
    means: 'What the upstream authority is or gave cannot be used.',
  },
  'store/unavailable': {
    status: Status.UNAVAILABLE,
    exit: 1,
    means: 'A store of SVIDs refuses, cannot be reached, or cannot be written.',
  },
  'store/foreign': {
    status: Status.FAILED_PRECONDITION,
    exit: 1,
    means: 'In a store of SVIDs something is in the way that no agent put there.',
  },
  'keys/unavailable': {
    status: Status.UNAVAILABLE,
    exit: 1,
    means: 'The store of the signing keys cannot be used now; nothing can be signed until it can.',
  },
  'keys/lost': { status: Status.UNAVAILABLE, exit: 1, means: 'A key is no longer in the store it was made in.' },
  'keys/sealed': {
    status: Status.FAILED_PRECONDITION,
    exit: 1,
    means: 'A sealed file of keys cannot be opened with what was given.',
  },
} as const satisfies Record<string, { status: StatusCode; exit: 1 | 2; means: string }>;
export type FaultCode = keyof typeof faults;

export interface FaultExtras {
  /** For the operator's log, never for the peer. */
  detail?: string;
  /** What to do next, as one sentence. */
  hint?: string;
  /** When to come again, milliseconds from now: sent as google.rpc.RetryInfo. 0: at once. */
  retryAfterMs?: number;
  /** Sent to agents as PermissionDeniedDetails. */
  reason?: DenialReason;
  /** Sent as google.rpc.ErrorInfo. */
  info?: ErrorInfo;
  /** Overrides the table's gRPC status where a contract names another one. */
  status?: StatusCode;
  cause?: unknown;
}

/** An expected refusal. Anything else that is thrown is a defect and becomes one bland INTERNAL. */
export class Fault extends Error {
  readonly code: FaultCode;
  readonly status: StatusCode;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  readonly reason: DenialReason | undefined;
  readonly info: ErrorInfo | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(code: FaultCode, message: string, extras: FaultExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause });
    this.name = 'Fault';
    this.code = code;
    this.status = extras.status ?? faults[code].status;
    this.detail = extras.detail;
    this.hint = extras.hint;
    this.reason = extras.reason;
    this.info = extras.info;
    this.retryAfterMs = extras.retryAfterMs;
  }
}

/** Turns anything thrown into a Fault; the unexpected keeps its text in `detail` only. */
export function asFault(thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  return new Fault('system/failed', 'internal error', { detail: text, cause: thrown });
}

/** Quotes a value for a message: JSON, cut at 120 characters so that a hostile value cannot fill a log. */
export function quote(value: unknown): string {
  const text = JSON.stringify(typeof value === 'bigint' ? value.toString() : value) ?? String(value);
  return text.length > 120 ? `${text.slice(0, 117)}..."` : text;
}
