/**
 * From a call to the identities behind it. Whoever has none is refused only after the agent has made sure that it is not
 * behind its server, and is told which selectors it has and what to do.
 */
import { Fault, Status } from '../../src/errors.ts';
import type { Call } from '../../src/rpc/serve.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import type { Selector } from '../../src/spiffe/selector.ts';
import type { Cache } from '../cache.ts';
import type { Identities } from '../identity-sets.ts';
import type { WorkloadAttestor } from '../workload/attest.ts';

export interface CallerPorts {
  readonly attestor: WorkloadAttestor;
  readonly cache: Cache;
  /** Resolves when what the server knew at the call is applied, or after `ms`. */
  catchUp(ms: number): Promise<void>;
  /** The agent's own ID, for the advice; undefined before attestation. */
  agentId(): SpiffeId | undefined;
  /** Whether the agent has ever known its entries. */
  ready(): boolean;
}

/** How long a caller without identities is held while the agent makes sure, milliseconds. */
const patience = 1_000;
/** Selectors named in a refusal. */
const mostNamed = 20;

/** The identities of the calling process, which may be none. At once when nothing has to be found out. */
export function identitiesOf(call: Call, { attestor, cache }: CallerPorts): Identities | Promise<Identities> {
  if (call.caller.kind !== 'unix')
    throw new Fault('caller/unauthenticated', 'the calling process could not be identified');
  const attested = attestor.attest(call.caller.peer);
  return attested instanceof Promise
    ? attested.then((selectors) => cache.identities(selectors))
    : cache.identities(attested);
}

/** The identities of the calling process. Throws `caller/denied` when it has none (WE-16, WA-24). */
export function entitled(call: Call, ports: CallerPorts): Identities | Promise<Identities> {
  const found = identitiesOf(call, ports);
  if (found instanceof Promise) return found.then((identities) => sure(identities, ports));
  return sure(found, ports);
}

function sure(identities: Identities, ports: CallerPorts): Identities | Promise<Identities> {
  return identities.entries.length > 0 ? identities : askServer(identities, ports);
}

async function askServer(identities: Identities, ports: CallerPorts): Promise<Identities> {
  const hasSome = (): boolean => identities.entries.length > 0;
  await caughtUp(ports, hasSome);
  if (hasSome()) return identities;
  throw noIdentity(identities.selectors, ports.agentId());
}

/** Waits until the agent is not behind its server. Throws `peer/unavailable` when it has never known what `hasSome` asks for. */
export async function caughtUp(ports: CallerPorts, hasSome: () => boolean): Promise<void> {
  await ports.catchUp(patience);
  if (hasSome() || ports.ready()) return;
  throw new Fault('peer/unavailable', 'the agent does not know its registration entries yet', {
    hint: 'Try again in a moment.',
  });
}

/** The refusal: what was found about the process, and what an operator would do. */
export function noIdentity(selectors: readonly Selector[], agentId: SpiffeId | undefined): Fault {
  const named = selectors.slice(0, mostNamed).map(shown).join(' ');
  const more = selectors.length > mostNamed ? ` and ${selectors.length - mostNamed} more` : '';
  const example = selectors.find((selector) => selector.startsWith('unix:uid:')) ?? selectors[0];
  return new Fault(
    'caller/denied',
    `no identity issued: no registration entry of this node matches the process, which has ${named}${more}`,
    {
      hint: `Create one: mutual entry create --parent-id ${agentId ?? 'AGENT-ID'} --spiffe-id ID --selector ${example === undefined ? 'TYPE:VALUE' : shown(example)}`,
      status: Status.PERMISSION_DENIED,
    },
  );
}

/** A selector for eyes and logs: of a variable of a container only the name, since its value may be a secret. */
const shown = (selector: Selector): string => selector.replace(/^(docker:env:[^=]*=).*$/s, '$1...');

/** How a stream ends whose caller had an identity and has none left (WA-25). */
export const redacted = (): Fault =>
  new Fault('caller/denied', 'no identity issued: the last registration entry for this process is gone', {
    hint: 'Stop using what was handed out before.',
  });
