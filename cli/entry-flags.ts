/** The flags that describe an entry, and the message they make. */
import { Fault } from '../src/errors.ts';
import { serverId, trustDomainOf } from '../src/spiffe/id.ts';
import { idToWire, selectorToWire } from '../src/wire/id.ts';
import type { Message } from './caller.ts';
import type { Values } from './command.ts';
import {
  adminSocket,
  anyText,
  dnsName,
  id,
  many,
  moment,
  output,
  seconds,
  selector,
  text,
  toggle,
  trustDomain,
} from './flags.ts';

export const entryFlags = {
  spiffeId: id('SPIFFE-ID', 'The identity workloads get'),
  parentId: id('SPIFFE-ID', 'The agent, or the alias of agents, that may hand it out'),
  selector: many(selector('A fact about the process; all given must hold')),
  x509SvidTtl: seconds("Lifetime of X.509-SVIDs; 0 is the server's default"),
  jwtSvidTtl: seconds("Lifetime of JWT-SVIDs; 0 is the server's default"),
  federatesWith: many(trustDomain('Another trust domain whose bundle goes with the SVIDs')),
  dns: many(dnsName('A DNS name for the X.509-SVID; the first is its common name too', { also: ['dnsname'] })),
  admin: toggle('Whoever has this identity may administer the server'),
  downstream: toggle('Whoever has this identity may act as a server below this one'),
  storeSvid: toggle('The SVID is put into a store by the agent, and no process gets it'),
  expiresAt: moment('When the entry ends by itself', { also: ['entryexpiry'] }),
  hint: anyText('TEXT', 'Tells workloads with several identities what this one is for'),
  disableX509SvidPrefetch: toggle('Agents fetch the X.509-SVID only when a workload asks'),
  jwtSvidIncludeJti: toggle('JWT-SVIDs carry a unique jti'),
  entryId: text('ID', 'The ID of the entry'),
  data: text('FILE', 'Entries as JSON, {"entries": [...]}, in place of the other flags; - reads standard input'),
  output,
  adminSocket,
};

export type EntryValues = Values<typeof entryFlags>;

/** What is asked for by flags. Throws `usage/invalid` naming every flag that is missing. */
export function entryMessage(values: EntryValues, node: boolean, needed: readonly (keyof EntryValues)[]): Message {
  const names: Partial<Record<keyof EntryValues, string>> = {
    entryId: '--entry-id ID',
    spiffeId: '--spiffe-id SPIFFE-ID',
    parentId: '--parent-id SPIFFE-ID',
    selector: '--selector TYPE:VALUE',
  };
  const missing = needed.filter(
    (key) => values[key] === undefined || (key === 'selector' && values.selector.length === 0),
  );
  if (missing.length > 0) {
    throw new Fault(
      'usage/invalid',
      `required ${missing.length === 1 ? 'flag is' : 'flags are'} missing: ${missing.map((key) => names[key]).join(', ')}`,
      {
        hint: 'Give them, or give --data FILE.',
      },
    );
  }
  if (node && values.parentId !== undefined) {
    throw new Fault('usage/invalid', '--parent-id is given together with --node, whose parent is always the server', {
      hint: 'Leave one of them out.',
    });
  }
  const spiffeId = values.spiffeId!;
  const parentId = node ? serverId(trustDomainOf(spiffeId)) : values.parentId!;
  return {
    id: values.entryId ?? '',
    spiffe_id: idToWire(spiffeId),
    parent_id: idToWire(parentId),
    selectors: values.selector.map(selectorToWire),
    x509_svid_ttl: values.x509SvidTtl ?? 0,
    jwt_svid_ttl: values.jwtSvidTtl ?? 0,
    federates_with: values.federatesWith,
    dns_names: values.dns,
    admin: values.admin,
    downstream: values.downstream,
    store_svid: values.storeSvid,
    expires_at: values.expiresAt ?? 0,
    hint: values.hint ?? '',
    ...(values.disableX509SvidPrefetch || values.jwtSvidIncludeJti
      ? {
          additional_attributes: {
            disable_x509_svid_prefetch: values.disableX509SvidPrefetch,
            jwt_svid_include_jti: values.jwtSvidIncludeJti,
          },
        }
      : {}),
  };
}

/** Refuses flags that describe an entry beside `--data`: one of the two would be ignored. */
export function onlyData(values: EntryValues, node: boolean): void {
  const { data: _, output: __, adminSocket: ___, ...rest } = values;
  const given = Object.values(rest).some((value) =>
    Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false,
  );
  if (given || node) {
    throw new Fault('usage/invalid', '--data is given together with flags that describe an entry', {
      hint: 'Put everything into the file, or leave --data out.',
    });
  }
}
