/** A Fault for grpc-js, which is loaded with this. */
import { Metadata, type ServiceError } from '@grpc/grpc-js';
import type { Fault } from '../errors.ts';
import { detailsOf, detailsTrailer, peerText } from './status.ts';

/** A Fault as grpc-js is told of it. */
export function serviceError(fault: Fault): ServiceError {
  const details = peerText(fault);
  const metadata = new Metadata();
  const encoded = detailsOf(fault, details);
  if (encoded !== undefined) metadata.set(detailsTrailer, encoded);
  return Object.assign(new Error(details), { code: fault.status as number, details, metadata });
}
