/**
 * The WIT-SVID profile of the Workload API (§7), which an agent offers where it is told to and its server has it. A trust
 * domain without WIT keys has no WIT-SVIDs (WIT-SVID §6.2): then both methods answer UNIMPLEMENTED (WA-3).
 */
import { asFault, Fault, quote, Status } from '../../src/errors.ts';
import type { Call, Encoded, Handler, Send } from '../../src/rpc/serve.ts';
import { parseId } from '../../src/spiffe/id.ts';
import type { AuthorizedEntry } from '../authorized.ts';
import type { Identities } from '../identity-sets.ts';
import type { WitCache } from '../wit-cache.ts';
import { entitled, redacted } from './caller.ts';
import { follow } from './follow.ts';
import { hintsOf, witBundles, witSvids } from './messages.ts';
import { notSigned } from './not-signed.ts';
import type { WorkloadApiPorts } from './workload.ts';

/** How long a first message is held for SVIDs that are still on their way, milliseconds. */
const firstPatience = 10_000;

/** @param bundleStream makes the handler of a stream of bundles */
export function witMethods(
  ports: WorkloadApiPorts,
  wits: WitCache,
  bundleStream: (
    make: (identities: Identities) => Encoded,
  ) => (request: object, call: Call, send: Send) => Promise<void>,
): Readonly<Record<string, Handler>> {
  const { cache, clock } = ports;
  const ownHasNone = (): boolean => cache.ownBundle.value.witAuthorities.length === 0;

  return {
    async FetchWITSVID(request: { spiffe_id: string }, call: Call, send: Send) {
      const wanted = request.spiffe_id === '' ? undefined : parseId(request.spiffe_id);
      const identities = await entitled(call, ports);
      if (ownHasNone()) throw notOffered();
      const all = identities.entries;
      if (wanted !== undefined && !all.some(({ spiffeId }) => spiffeId === wanted)) throw notEntitled(wanted, all);

      const started = clock.now();
      let isFirst = true;
      let wake = (): void => {};
      const hold = wits.hold(() => wake());
      const chosen = chooser(wanted);
      const message = (): Encoded | undefined => {
        const entries = chosen(identities.entries);
        hold.set(entries);
        if (entries.length === 0) throw redacted();
        const hints = hintsOf(entries);
        const found = entries.flatMap((entry) => {
          const svid = wits.svidFor(entry);
          return svid === undefined ? [] : { svid, hint: hints.get(entry.id) ?? '' };
        });
        if (found.length === 0 && entries.some((entry) => wits.refusal(entry)?.status === Status.UNIMPLEMENTED))
          throw notOffered();
        if (isFirst) {
          const isComplete = entries.every((entry) => wits.svidFor(entry) ?? wits.refusal(entry));
          if (!isComplete && clock.now() - started < firstPatience) return undefined;
          if (found.length === 0) throw whyNone(entries, wits);
          isFirst = false;
        }
        // While the server is away one that has ended leaves; when none is left, the stream waits for the next.
        return found.length === 0 ? undefined : witSvids(found);
      };
      try {
        await follow(
          call,
          send,
          message,
          identities.follow,
          (told) => {
            wake = told;
            return () => {};
          },
          (told) => clock.after(firstPatience, told),
        );
      } finally {
        hold.end();
      }
    },

    async FetchWITBundles(request: object, call: Call, send: Send) {
      let isFirst = true;
      await bundleStream((identities) => {
        if (isFirst && ownHasNone() && !identities.federated.some(({ witAuthorities }) => witAuthorities.length > 0))
          throw notOffered();
        isFirst = false;
        return witBundles(cache, identities);
      })(request, call, send);
    },
  };
}

/** Picks the entries of one ID, the same array as long as it is given the same. */
function chooser(wanted: string | undefined): (entries: readonly AuthorizedEntry[]) => readonly AuthorizedEntry[] {
  if (wanted === undefined) return (entries) => entries;
  let given: readonly AuthorizedEntry[] = [];
  let chosen: readonly AuthorizedEntry[] = [];
  return (entries) => {
    if (entries !== given) {
      given = entries;
      chosen = entries.filter(({ spiffeId }) => spiffeId === wanted);
    }
    return chosen;
  };
}

function notEntitled(wanted: string, entries: readonly AuthorizedEntry[]): Fault {
  return new Fault('caller/denied', `no identity issued: the process is not entitled to ${quote(wanted)}`, {
    hint: `It is entitled to ${entries.map(({ spiffeId }) => spiffeId).join(', ')}.`,
  });
}

const notOffered = (): Fault =>
  new Fault('method/unimplemented', 'the server of this trust domain issues no WIT-SVIDs', {
    hint: 'Enable witSvids on the server.',
  });

/** What a stream ends with that has nothing to serve. */
function whyNone(entries: readonly AuthorizedEntry[], wits: WitCache): Fault {
  const fault = entries.map((entry) => wits.refusal(entry)).find((one) => one !== undefined);
  try {
    return notSigned(fault ?? new Fault('peer/unavailable', 'the server has not answered'), 'WIT-SVID');
  } catch (error) {
    return asFault(error);
  }
}
