import { command } from './command.ts';
import { id, many, output, text, timeout, workloadSocket } from './flags.ts';
import { jsonLine } from './json.ts';
import { visible } from './visible.ts';
import { withWorkload } from './workload.ts';

export const fetchJwt = command({
  summary: 'Fetch a JWT-SVID of this process',
  about:
    'Prints the token. With several identities, each is labelled with its SPIFFE ID; --spiffe-id picks one. JSON is a list of two messages, as SPIRE prints it: the SVIDs, and the key sets to validate them with.',
  flags: {
    audience: {
      ...many(text('AUDIENCE', 'Who it is meant for; several may stand with commas between')),
      required: true,
    },
    spiffeId: id('SPIFFE-ID', 'Only this identity'),
    timeout,
    output,
    socket: workloadSocket,
  },
  examples: [
    [
      'curl -H "Authorization: Bearer $(mutual fetch jwt --audience https://api.example.org)" https://api.example.org',
      'Call a service with it',
    ],
  ],
  async run(values, ports) {
    const audience = values.audience.flatMap((each) => each.split(',')).filter((each) => each !== '');
    const request = { audience, ...(values.spiffeId !== undefined && { spiffe_id: values.spiffeId }) };
    const [svids, bundles] = await withWorkload(values.socket, ports, async (workload) => [
      await workload.call('FetchJWTSVID', request, values.timeout),
      values.output === 'json' ? await workload.first('FetchJWTBundles', {}, values.timeout) : undefined,
    ]);
    if (values.output === 'json') {
      ports.out(jsonLine([svids, bundles]));
    } else if (svids.svids.length === 1) {
      ports.out(`${svids.svids[0].svid}\n`);
    } else {
      for (const { spiffe_id, svid, hint } of svids.svids)
        ports.out(`${visible(spiffe_id)}${hint ? ` (${visible(hint)})` : ''}\n${svid}\n`);
    }
    return 0;
  },
});
