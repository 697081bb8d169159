/**
 * Messages that the library refuses before a handler sees them: too large, badly compressed, not what the contract says.
 * It answers the caller and tells nobody here; this notices, so that such a call has its own outcome and its line in the log.
 */
import type { ServerInterceptingCall, ServerInterceptingCallInterface, ServerInterceptor } from '@grpc/grpc-js';
import { Fault, Status } from '../errors.ts';

/** A call that has reached our code; once it has ended, statuses are ours. */
interface Begun {
  readonly ended: boolean;
}

export interface RefusedMessages {
  readonly interceptor: ServerInterceptor;
  /** To be called with what a handler is given, when it is called. */
  begin(surface: object, call: Begun): void;
  /** Why a call that a handler has been given was broken off by the library, if it was. */
  of(surface: object): Fault | undefined;
}

/** @param alone told of a call that never reached a handler: its method, its connection and why */
export function refusedMessages(alone: (method: string, connection: string, fault: Fault) => void): RefusedMessages {
  const begun = new WeakMap<object, Begun>();
  const refused = new WeakMap<object, Fault>();
  return {
    interceptor(method, call) {
      // The library calls this method of its own object, also where no interceptor of the usual kind is asked.
      const sendStatus = call.sendStatus;
      call.sendStatus = (status) => {
        const fault = refusal(status.code ?? Status.UNKNOWN, status.details ?? '');
        const known = begun.get(call);
        if (fault !== undefined && known?.ended !== true && !refused.has(call)) {
          refused.set(call, fault);
          if (known === undefined) alone(method.path, call.getPeer(), fault);
        }
        sendStatus.call(call, status);
      };
      return call as ServerInterceptingCall;
    },
    begin: (surface, call) => void begun.set(inner(surface), call),
    of: (surface) => refused.get(inner(surface)),
  };
}

function refusal(code: number, details: string): Fault | undefined {
  if (code === Status.RESOURCE_EXHAUSTED) return new Fault('limit/exceeded', details);
  if (code === Status.INTERNAL || code === Status.UNIMPLEMENTED)
    return new Fault('input/invalid', details, { status: code });
  return undefined;
}

/** The library's call behind what it gives a handler. */
const inner = (surface: object): object =>
  (surface as { readonly call?: ServerInterceptingCallInterface }).call ?? surface;
