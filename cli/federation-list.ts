import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { relationshipTable } from './federation-relationship.ts';
import { adminSocket, output } from './flags.ts';
import { jsonLine } from './json.ts';

export const federationList = command({
  summary: 'List federation relationships',
  flags: { output, adminSocket },
  async run(values, ports) {
    const items = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.all('federation', 'ListFederationRelationships', {}, 'federation_relationships'),
    );
    if (values.output === 'json') ports.out(jsonLine({ federation_relationships: items, next_page_token: '' }));
    else ports.out(items.length > 0 ? relationshipTable(items, ports) : 'No federation relationships\n');
    return 0;
  },
});
