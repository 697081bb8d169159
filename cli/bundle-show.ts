import { withAdmin } from './admin.ts';
import { bundleFormat, bundleText } from './bundle-text.ts';
import { command } from './command.ts';
import { adminSocket, output } from './flags.ts';
import { jsonLine } from './json.ts';

export const bundleShow = command({
  summary: 'Print the trust bundle of the server',
  flags: { format: bundleFormat, output, adminSocket },
  examples: [['mutual bundle show > bundle.pem', 'The bundle for "mutual agent run --trust-bundle bundle.pem"']],
  async run(values, ports) {
    const bundle = await withAdmin(values.adminSocket, ports, (admin) => admin.call('bundle', 'GetBundle', {}));
    ports.out(values.output === 'json' ? jsonLine(bundle) : bundleText(bundle, values.format));
    return 0;
  },
});
