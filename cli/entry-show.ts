import { Fault, quote } from '../src/errors.ts';
import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { entryFilterFlags, findEntries } from './entry-filter.ts';
import { entryBlock, sortEntries } from './entry-text.ts';
import { text } from './flags.ts';
import { jsonLine } from './json.ts';
import { count } from './table.ts';

export const entryShow = command({
  summary: 'Show registration entries in full',
  about: 'Shows one entry by its ID, or every entry that the filters let through; all of them when there is no filter.',
  flags: { entryId: text('ID', 'Only this entry; no other filter may be given'), ...entryFilterFlags },
  examples: [
    ['mutual entry show --selector unix:uid:1000 --match-selectors-on any', 'Which identities can a user get'],
  ],
  async run({ entryId, ...values }, ports) {
    if (entryId !== undefined && hasFilter(values)) {
      throw new Fault('usage/invalid', '--entry-id is given together with a filter', {
        hint: 'Give one or the other.',
      });
    }
    const entries = await withAdmin(values.adminSocket, ports, async (admin) => {
      if (entryId === undefined) return sortEntries(await findEntries(admin, values));
      try {
        return [await admin.call('entry', 'GetEntry', { id: entryId })];
      } catch (error) {
        if (error instanceof Fault && error.code === 'thing/missing') {
          throw new Fault('thing/missing', `there is no entry ${quote(entryId)}`, {
            hint: 'See "mutual entry list".',
            cause: error,
          });
        }
        throw error;
      }
    });
    if (values.output === 'json') ports.out(jsonLine({ entries, next_page_token: '' }));
    else
      ports.out(
        [
          `Found ${count(entries.length, 'entry', 'entries')}\n`,
          ...entries.map((entry) => entryBlock(entry, ports)),
        ].join('\n'),
      );
    return 0;
  },
});

function hasFilter(values: {
  spiffeId?: unknown;
  parentId?: unknown;
  hint?: unknown;
  downstream: boolean;
  selector: readonly unknown[];
  federatesWith: readonly unknown[];
}): boolean {
  return (
    values.spiffeId !== undefined ||
    values.parentId !== undefined ||
    values.hint !== undefined ||
    values.downstream ||
    values.selector.length > 0 ||
    values.federatesWith.length > 0
  );
}
