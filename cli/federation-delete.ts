import { withAdmin } from './admin.ts';
import { reportFailed } from './batch.ts';
import { command } from './command.ts';
import { adminSocket, output, required, trustDomain } from './flags.ts';
import { jsonLine } from './json.ts';

export const federationDelete = command({
  summary: 'Stop following another trust domain',
  about: 'Its bundle stays as it is; "mutual bundle delete" removes it.',
  flags: { trustDomain: required(trustDomain('Whose bundle is followed', { also: ['id'] })), output, adminSocket },
  async run(values, ports) {
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('federation', 'BatchDeleteFederationRelationship', { trust_domains: [values.trustDomain] }),
    );
    const exit = reportFailed(response.results, 'federation relationship not deleted', () => values.trustDomain, ports);
    if (values.output === 'json') ports.out(jsonLine(response));
    else if (exit === 0) ports.out(`Deleted the federation relationship with ${values.trustDomain}\n`);
    return exit;
  },
});
