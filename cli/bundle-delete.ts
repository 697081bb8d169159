import { withAdmin } from './admin.ts';
import { reportFailed } from './batch.ts';
import { command } from './command.ts';
import { adminSocket, choice, output, required, trustDomain, withDefault } from './flags.ts';
import { jsonLine } from './json.ts';

export const bundleDelete = command({
  summary: 'Delete the bundle of another trust domain',
  flags: {
    trustDomain: required(trustDomain('Whose bundle it is', { also: ['id'] })),
    mode: withDefault(
      choice(
        'MODE',
        ['restrict', 'dissociate', 'delete'],
        'When entries federate with the trust domain: refuse (restrict), take it out of them (dissociate), or delete them too (delete)',
      ),
      'restrict',
    ),
    output,
    adminSocket,
  },
  async run(values, ports) {
    const request = { trust_domains: [values.trustDomain], mode: values.mode.toUpperCase() };
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('bundle', 'BatchDeleteFederatedBundle', request),
    );
    const exit = reportFailed(response.results, 'bundle not deleted', () => values.trustDomain, ports);
    if (values.output === 'json') ports.out(jsonLine(response));
    else if (exit === 0) ports.out(`Deleted the bundle of ${values.trustDomain}\n`);
    return exit;
  },
});
