import { withAdmin } from './admin.ts';
import { reportFailed } from './batch.ts';
import { bundleFormat, bundleMessage } from './bundle-text.ts';
import { command } from './command.ts';
import { adminSocket, output, required, text, trustDomain, withDefault } from './flags.ts';
import { readInput } from './input-file.ts';
import { jsonLine } from './json.ts';

export const bundleSet = command({
  summary: 'Store the bundle of another trust domain',
  flags: {
    trustDomain: required(trustDomain('Whose bundle it is', { also: ['id'] })),
    path: withDefault(text('FILE', 'The bundle; - reads standard input'), '-'),
    format: bundleFormat,
    output,
    adminSocket,
  },
  examples: [['mutual bundle set --trust-domain other.org --path other.pem', 'Trust another domain by its roots']],
  async run(values, ports) {
    const bundle = bundleMessage(await readInput(values.path, '--path', ports), values.trustDomain, values.format);
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('bundle', 'BatchSetFederatedBundle', { bundle: [bundle] }),
    );
    const exit = reportFailed(response.results, 'bundle not set', () => values.trustDomain, ports);
    if (values.output === 'json') ports.out(jsonLine(response));
    else if (exit === 0) ports.out(`Set the bundle of ${values.trustDomain}\n`);
    return exit;
  },
});
