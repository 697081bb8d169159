import { asFault, Fault, Status } from '../../src/errors.ts';

/** What a workload learns when the server did not sign: never what the server told the agent about itself. */
export function notSigned(error: unknown, kind: 'JWT-SVID' | 'WIT-SVID' = 'JWT-SVID'): never {
  const fault = asFault(error);
  if (fault.status === Status.NOT_FOUND) {
    throw new Fault('caller/denied', 'no identity issued: the server no longer authorizes it', { cause: error });
  }
  if (fault.status === Status.UNIMPLEMENTED || fault.status === Status.INVALID_ARGUMENT) throw fault;
  throw new Fault('peer/unavailable', `no ${kind} could be got from the server`, {
    hint: 'Try again; the agent’s log says why.',
    detail: fault.message,
    cause: error,
  });
}
