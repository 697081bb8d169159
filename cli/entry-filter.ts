/** The filters of `entry show`, `list` and `count`, and the entries they find. */
import { idToWire, selectorToWire } from '../src/wire/id.ts';
import type { Admin } from './admin.ts';
import type { Message } from './caller.ts';
import type { Values } from './command.ts';
import { adminSocket, anyText, choice, id, many, output, selector, toggle, trustDomain, withDefault } from './flags.ts';

/** How a set given by flags compares with an entry's own. */
const matchModes = ['exact', 'any', 'superset', 'subset'] as const;

export const entryFilterFlags = {
  spiffeId: id('SPIFFE-ID', 'Only entries of this identity'),
  parentId: id('SPIFFE-ID', 'Only entries of this parent'),
  selector: many(selector('Only entries with this selector; see --match-selectors-on')),
  matchSelectorsOn: withDefault(
    choice(
      'MODE',
      matchModes,
      'How the selectors given must match: the entry has exactly these, any of these, at least these (superset), only some of these (subset)',
    ),
    'superset',
  ),
  federatesWith: many(trustDomain('Only entries federated with this trust domain; see --match-federates-with-on')),
  matchFederatesWithOn: withDefault(choice('MODE', matchModes, 'How the trust domains given must match'), 'superset'),
  hint: anyText('TEXT', 'Only entries with this hint'),
  downstream: toggle('Only downstream entries'),
  output,
  adminSocket,
};

/** The filter of a list or count request. */
export function entryFilter(values: Values<typeof entryFilterFlags>): Message {
  return {
    ...(values.spiffeId && { by_spiffe_id: idToWire(values.spiffeId) }),
    ...(values.parentId && { by_parent_id: idToWire(values.parentId) }),
    ...(values.selector.length > 0 && {
      by_selectors: {
        selectors: values.selector.map(selectorToWire),
        match: `MATCH_${values.matchSelectorsOn.toUpperCase()}`,
      },
    }),
    ...(values.federatesWith.length > 0 && {
      by_federates_with: {
        trust_domains: values.federatesWith,
        match: `MATCH_${values.matchFederatesWithOn.toUpperCase()}`,
      },
    }),
    ...(values.hint !== undefined && { by_hint: { value: values.hint } }),
    ...(values.downstream && { by_downstream: { value: true } }),
  };
}

export const findEntries = (admin: Admin, values: Values<typeof entryFilterFlags>): Promise<Message[]> =>
  admin.all('entry', 'ListEntries', { filter: entryFilter(values) }, 'entries');
