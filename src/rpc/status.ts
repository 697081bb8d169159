/**
 * One Fault, one gRPC status, both ways. Only `message` and `hint` travel, and `reason` as the detail that agents act
 * upon. What is not a Fault is a defect of ours and travels as "internal error".
 */
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import { asFault, type DenialReason, Fault, type FaultCode, Status, type StatusCode } from '../errors.ts';
import { messageCodec } from './load.ts';

/** The trailer that holds a google.rpc.Status. */
const detailsTrailer = 'grpc-status-details-bin';
const deniedType = 'spire.api.types.PermissionDeniedDetails';
const anyPrefix = 'type.googleapis.com/';
/** Texts travel in a header, where each character may take nine bytes and 64 KB is the end. */
const longestText = 4096;

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

/** A Fault as gRPC sends it. */
export function serviceError(fault: Fault): ServiceError {
  const details = peerText(fault);
  const metadata = new Metadata();
  if (fault.reason !== undefined) {
    const value = messageCodec(deniedType).encode({ reason: fault.reason });
    const detail = { type_url: `${anyPrefix}${deniedType}`, value };
    metadata.set(
      detailsTrailer,
      messageCodec('google.rpc.Status').encode({ code: fault.status, message: details, details: [detail] }),
    );
  }
  return Object.assign(new Error(details), { code: fault.status as number, details, metadata });
}

/** What a call that failed is to its caller. A reason that cannot be read is as good as none. */
export function faultOfCall(error: unknown): Fault {
  if (error instanceof Fault) return error;
  if (!isServiceError(error)) return asFault(error);
  const status = (error.code in codeOf ? error.code : Status.UNKNOWN) as StatusCode;
  const reason = reasonIn(error.metadata);
  return new Fault(codeOf[status], error.details, {
    status,
    cause: error,
    ...(reason === undefined ? {} : { reason }),
  });
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' && 'details' in error;
}

function reasonIn(metadata: Metadata | undefined): DenialReason | undefined {
  const bytes = metadata?.get(detailsTrailer)[0];
  if (!(bytes instanceof Buffer)) return undefined;
  try {
    for (const detail of messageCodec('google.rpc.Status').decode(bytes).details) {
      if (detail.type_url !== `${anyPrefix}${deniedType}`) continue;
      const { reason } = messageCodec(deniedType).decode(detail.value);
      if (reasons.has(reason)) return reason;
    }
  } catch {
    // Whatever the peer put there, the status itself stands.
  }
  return undefined;
}
