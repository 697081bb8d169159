/**
 * spiffe.broker.API (SPIFFE Broker API): a broker gets the identities of a workload that it refers to, by pid or as a pod.
 * Each call speaks of one workload. Identities of admin and downstream entries are never handed out, whoever asks. A stream
 * ends when its workload is gone or entitled to nothing; the connection and every other stream on it go on.
 */
import { asFault, Fault, type FaultCode, quote } from '../../src/errors.ts';
import type { Call, Encoded, Send, Service } from '../../src/rpc/serve.ts';
import { parseId, type SpiffeId } from '../../src/spiffe/id.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import { podSubject } from '../broker/pod-subject.ts';
import {
  type Reference,
  readReference,
  type WireReference,
  type WorkloadReason,
  workloadInfo,
} from '../broker/reference.ts';
import type { Place, Rights } from '../broker/rights.ts';
import { type JwtCache, readAudience } from '../jwt-cache.ts';
import type { Pod } from '../workload/pods.ts';
import type { WatchedPods } from '../workload/watched-pods.ts';
import { type CallerPorts, caughtUp, noIdentity } from './caller.ts';
import { follow } from './follow.ts';
import { jwtBundles, type Material, x509Bundles, x509Svids } from './messages.ts';
import { onBehalf, patience, processSubject, type Subject, type SubjectPorts, waits } from './on-behalf.ts';
import { notIssued, tokens } from './workload.ts';

export type Profile = 'x509' | 'jwt';

export interface BrokerPorts extends CallerPorts, SubjectPorts {
  readonly jwts: JwtCache;
  readonly rights: Rights;
  /** Undefined where the agent knows no pods now. */
  pods(): WatchedPods | undefined;
  readonly profiles: readonly Profile[];
  /** Who calls. Throws what makes it nobody, such as a certificate that counts no more. */
  brokerOf(call: Call): SpiffeId;
}

interface Request {
  readonly reference: WireReference | null;
}

/** @param from where this service is reached, which decides what may be referred to */
export function brokerApi(ports: BrokerPorts, from: Place): Service {
  const { cache, clock, rights } = ports;

  const find = async (reference: Reference, signal: AbortSignal): Promise<Subject & { readonly pod?: Pod }> => {
    if (reference.kind === 'process') return processSubject(reference.pid, ports);
    const pods = ports.pods();
    if (pods === undefined) {
      throw new Fault('input/invalid', 'this agent knows no pods: workloadAttestors.k8s is not configured', {
        info: workloadInfo('WORKLOAD_REFERENCE_INVALID', reference),
      });
    }
    return podSubject(reference, { cache, clock, pods }, signal);
  };

  /**
   * Does work for the workload that is meant. `check` gives what it is entitled to, and throws once broker or workload are
   * not what they were.
   */
  const withSubject = async <T>(
    reference: Reference,
    call: Call,
    work: (subject: Subject, check: () => Material) => Promise<T>,
  ): Promise<T> => {
    const requireRights = (subject?: Awaited<ReturnType<typeof find>>): void => {
      rights.requireReference(ports.brokerOf(call), reference, from);
      if (subject?.pod !== undefined) rights.requireNamespace(subject.pod.namespace);
    };
    requireRights();
    const subject = await find(reference, call.signal).catch(rejecting(reference));
    try {
      requireRights(subject);
      const material = (): Material => onBehalf(subject.identities);
      const hasSome = (): boolean => material().entries.length > 0;
      const check = (): Material => {
        requireRights(subject);
        try {
          subject.check();
          if (!hasSome()) throw noIdentity(subject.identities.selectors, ports.agentId());
          return material();
        } catch (error) {
          throw withReason(error, reference);
        }
      };
      if (!hasSome()) await caughtUp(ports, hasSome);
      return await work(subject, check);
    } finally {
      subject.close();
    }
  };

  const bundleStream =
    (make: (material: Material) => Encoded) =>
    ({ reference }: Request, call: Call, send: Send): Promise<void> =>
      withSubject(readReference(reference), call, (subject, check) =>
        follow(call, send, () => make(check()), ...subject.wakes),
      );

  const x509: Service['methods'] = {
    SubscribeToX509SVID: ({ reference }: Request, call, send) =>
      withSubject(readReference(reference), call, (subject, check) => {
        const started = clock.now();
        let isFirst = true;
        const message = (): Encoded | undefined => {
          const material = check();
          if (isFirst && waits(subject, cache, started, clock.now())) return undefined;
          const made = x509Svids(cache, material, clock.now());
          if (isFirst && made === undefined) throw notIssued(material.entries, cache);
          isFirst = false;
          return made;
        };
        return follow(call, send, message, patience(clock), ...subject.wakes);
      }),
    SubscribeToX509Bundles: bundleStream((material) => x509Bundles(cache, material)),
  };

  const jwt: Service['methods'] = {
    async FetchJWTSVID(request: Request & { audience: readonly string[]; spiffe_id: string }, call) {
      const audience = readAudience(request.audience);
      const wanted = request.spiffe_id === '' ? undefined : parseId(request.spiffe_id);
      const reference = readReference(request.reference);
      return withSubject(reference, call, async (_subject, check) => {
        const material = check();
        const all = material.entries;
        const entries = wanted === undefined ? all : all.filter(({ spiffeId }) => spiffeId === wanted);
        if (entries.length === 0) throw withReason(notThatOne(wanted, all), reference);
        const answer = await Promise.resolve(tokens(entries, material, audience, ports.jwts)).catch(
          rejecting(reference),
        );
        // The token was on its way for a while.
        check();
        return answer;
      });
    },
    SubscribeToJWTBundles: bundleStream((material) => jwtBundles(cache, material)),
  };

  return {
    name: 'spiffe.broker.API',
    methods: {
      ...(ports.profiles.includes('x509') ? x509 : {}),
      ...(ports.profiles.includes('jwt') ? jwt : {}),
    },
  };
}

const reasonOf: Readonly<Partial<Record<FaultCode, WorkloadReason>>> = {
  'thing/missing': 'WORKLOAD_NOT_FOUND',
  'caller/denied': 'WORKLOAD_NOT_ENTITLED',
};

/** A failure about the workload, with the reason that the standard has for it (§4.8). */
function withReason(error: unknown, reference: Reference): Fault {
  const fault = asFault(error);
  const { code, message, status, hint, detail } = fault;
  const reason = reasonOf[code];
  if (fault.info !== undefined || reason === undefined) return fault;
  return new Fault(code, message, {
    status,
    info: workloadInfo(reason, reference),
    cause: fault,
    ...(hint === undefined ? {} : { hint }),
    ...(detail === undefined ? {} : { detail }),
  });
}

const rejecting =
  (reference: Reference) =>
  (error: unknown): never => {
    throw withReason(error, reference);
  };

function notThatOne(wanted: SpiffeId | undefined, entries: readonly AuthorizedEntry[]): Fault {
  return new Fault('caller/denied', `no identity issued: the workload is not entitled to ${quote(wanted)}`, {
    hint: `It is entitled to ${entries.map(({ spiffeId }) => spiffeId).join(', ')}.`,
  });
}
