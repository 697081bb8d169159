import { Fault, quote } from '../src/errors.ts';
import { withAdmin } from './admin.ts';
import { bundleFormat, bundleText } from './bundle-text.ts';
import { command } from './command.ts';
import { adminSocket, output, trustDomain } from './flags.ts';
import { jsonLine } from './json.ts';

export const bundleList = command({
  summary: 'Print the bundles of other trust domains',
  about:
    'Each bundle has a line with its trust domain above it; with --trust-domain there is one bundle and no such line.',
  flags: {
    trustDomain: trustDomain('Only this trust domain', { also: ['id'] }),
    format: bundleFormat,
    output,
    adminSocket,
  },
  async run(values, ports) {
    const name = values.trustDomain;
    if (name !== undefined) {
      const bundle = await withAdmin(values.adminSocket, ports, (admin) =>
        admin.call('bundle', 'GetFederatedBundle', { trust_domain: name }),
      ).catch((error: unknown) => {
        if (!(error instanceof Fault) || error.code !== 'thing/missing') throw error;
        throw new Fault('thing/missing', `there is no bundle of trust domain ${quote(name)}`, {
          hint: 'See "mutual bundle list".',
          cause: error,
        });
      });
      ports.out(values.output === 'json' ? jsonLine(bundle) : bundleText(bundle, values.format));
      return 0;
    }
    const bundles = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.all('bundle', 'ListFederatedBundles', {}, 'bundles'),
    );
    if (values.output === 'json') ports.out(jsonLine({ bundles, next_page_token: '' }));
    else if (bundles.length === 0) ports.err('No bundles of other trust domains\n');
    else
      ports.out(bundles.map((bundle) => `# ${bundle.trust_domain}\n${bundleText(bundle, values.format)}`).join('\n'));
    return 0;
  },
});
