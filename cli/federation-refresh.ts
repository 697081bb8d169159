import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { adminSocket, output, required, trustDomain } from './flags.ts';
import { jsonLine } from './json.ts';

export const federationRefresh = command({
  summary: "Fetch another trust domain's bundle now",
  flags: { trustDomain: required(trustDomain('Whose bundle is followed', { also: ['id'] })), output, adminSocket },
  async run(values, ports) {
    await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('federation', 'RefreshBundle', { trust_domain: values.trustDomain }),
    );
    ports.out(
      values.output === 'json'
        ? jsonLine({ code: 0, message: 'OK' })
        : `Refreshed the bundle of ${values.trustDomain}\n`,
    );
    return 0;
  },
});
