/**
 * spire.api.agent.delegatedidentity.v1.DelegatedIdentity, on the admin socket: a delegate gets the identities of other
 * workloads, which it names by their selectors or by a pid. A delegate is a process that is itself attested and has an
 * identity among those configured; it is looked at again at every change. Identities of admin and downstream entries are
 * never handed out, whoever asks.
 */
import { Fault } from '../../src/errors.ts';
import type { Call, Encoded, Send, Service } from '../../src/rpc/serve.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { selectorsFromWire, type WireSelector } from '../../src/wire/id.ts';
import type { Identities } from '../identity-sets.ts';
import { type JwtCache, readAudience } from '../jwt-cache.ts';
import { type CallerPorts, entitled, noIdentity } from './caller.ts';
import { allBundles, delegatedJwtSvids, delegatedX509Svids } from './delegated-messages.ts';
import { follow, type Wakes } from './follow.ts';
import { notSigned } from './not-signed.ts';
import { delegable, described, patience, processSubject, type Subject, type SubjectPorts, waits } from './on-behalf.ts';

export interface DelegatedPorts extends CallerPorts, SubjectPorts {
  readonly jwts: JwtCache;
  /** Who may ask. */
  isDelegate(id: SpiffeId): boolean;
}

/** Names a workload by one of the two. */
interface Named {
  readonly selectors: readonly WireSelector[];
  readonly pid: number;
}

/** More than any process has. */
const mostSelectors = 1_000;

export function delegatedApi(ports: DelegatedPorts): Service {
  const { cache, clock, jwts } = ports;
  const bundles = allBundles(cache);

  const requireDelegate = ({ entries }: Identities): void => {
    if (entries.some(({ spiffeId }) => ports.isDelegate(spiffeId))) return;
    throw new Fault('caller/denied', 'caller not configured as an authorized delegate', {
      hint: 'Name one of its SPIFFE IDs in authorizedDelegates of the agent.',
    });
  };
  const delegateOf = async (call: Call): Promise<Identities> => {
    const delegate = await entitled(call, ports);
    requireDelegate(delegate);
    return delegate;
  };

  const subjectOf = async ({ selectors, pid }: Named): Promise<Subject> => {
    if (selectors.length > 0 === (pid !== 0)) {
      throw new Fault('input/invalid', 'must provide either selectors or non-zero PID, but not both');
    }
    if (pid < 0) throw new Fault('input/invalid', `PID ${pid} is not valid: expected a positive number`);
    if (pid > 0) return processSubject(pid, ports);
    if (selectors.length > mostSelectors) {
      throw new Fault('input/invalid', `${selectors.length} selectors are too many: at most ${mostSelectors}`);
    }
    return described(selectorsFromWire(selectors), cache);
  };

  const bundleStream = (make: () => Encoded) => async (_request: object, call: Call, send: Send) => {
    const delegate = await delegateOf(call);
    const message = (): Encoded => {
      requireDelegate(delegate);
      return make();
    };
    await follow(call, send, message, delegate.follow, (wake) => cache.changes.onChange(wake));
  };

  return {
    name: 'spire.api.agent.delegatedidentity.v1.DelegatedIdentity',
    methods: {
      async SubscribeToX509SVIDs(request: Named, call, send) {
        const delegate = await delegateOf(call);
        const subject = await subjectOf(request);
        const { identities } = subject;
        const started = clock.now();
        let isFirst = true;
        const message = (): Encoded | undefined => {
          requireDelegate(delegate);
          subject.check();
          if (isFirst && waits(subject, cache, started, clock.now())) return undefined;
          isFirst = false;
          return delegatedX509Svids(cache, identities);
        };
        const wakes: Wakes[] = [delegate.follow, patience(clock), ...subject.wakes];
        try {
          await follow(call, send, message, ...wakes);
        } finally {
          subject.close();
        }
      },

      SubscribeToX509Bundles: bundleStream(bundles.x509),

      SubscribeToJWTBundles: bundleStream(bundles.jwt),

      async FetchJWTSVIDs(request: Named & { audience: readonly string[] }, call) {
        const audience = readAudience(request.audience);
        await delegateOf(call);
        const subject = await subjectOf(request);
        try {
          const entries = delegable(subject.identities);
          if (entries.length === 0) throw noIdentity(subject.identities.selectors, ports.agentId());
          const svids = await Promise.all(entries.map((entry) => jwts.fetch(entry, audience))).catch((error: unknown) =>
            notSigned(error),
          );
          subject.check();
          return delegatedJwtSvids(entries, svids);
        } finally {
          subject.close();
        }
      },
    },
  };
}
