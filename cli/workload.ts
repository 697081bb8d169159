/** Calls to the Workload API: the header every call must carry, and the first message of its streams. */
import { splitCertificates } from '../src/crypto/certificate.ts';
import { Fault } from '../src/errors.ts';
import { type Caller, type CallOptions, type Message, withCaller } from './caller.ts';
import type { Ports } from './ports.ts';
import { workloadApi } from './socket-choice.ts';
import type { SvidFiles } from './write-svid.ts';

const service = 'SpiffeWorkloadAPI';
/** Without it the agent refuses: it keeps a confused program from being tricked into a call (Workload Endpoint §3). */
const metadata = { 'workload.spiffe.io': 'true' };

export interface Workload {
  readonly socket: Caller['socket'];
  call(method: string, request: object, seconds: number): Promise<Message>;
  /** The first message of a stream. */
  first(method: string, request: object, seconds: number): Promise<Message>;
  stream(method: string, request: object): AsyncIterable<Message>;
}

/** Does work with the agent that `--socket`, SPIFFE_ENDPOINT_SOCKET or the default names. */
export function withWorkload<T>(
  given: string | undefined,
  ports: Ports,
  work: (workload: Workload) => Promise<T>,
): Promise<T> {
  return withCaller(workloadApi, given, ports, (caller) => {
    const options = (seconds?: number): CallOptions =>
      seconds === undefined ? { metadata } : { metadata, deadlineMs: seconds * 1000 };
    return work({
      socket: caller.socket,
      call: (method, request, seconds) => caller.call(service, method, request, options(seconds)),
      async first(method, request, seconds) {
        for await (const message of caller.stream(service, method, request, options(seconds))) return message;
        throw new Fault('peer/unavailable', 'the agent ended the stream without an answer', {
          hint: 'Try again, and see the log of the agent.',
        });
      },
      stream: (method, request) => caller.stream(service, method, request, options()),
    });
  });
}

/** The parts of an X509SVID message. */
export function svidParts(svid: { x509_svid: Buffer; x509_svid_key: Buffer; bundle: Buffer }): SvidFiles {
  return { chain: splitCertificates(svid.x509_svid), key: svid.x509_svid_key, roots: splitCertificates(svid.bundle) };
}
