import { Fault, quote } from '../src/errors.ts';
import { parseWitBundles } from '../src/spiffe/bundle-jwks.ts';
import { witFromHeaders, witHeader } from '../src/spiffe/wit-proof.ts';
import { verifyWitSvid } from '../src/spiffe/wit-svid.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { output, required, text, timeout, workloadSocket } from './flags.ts';
import { jsonLine } from './json.ts';
import { block } from './table.ts';
import { withWorkload } from './workload.ts';

export const validateWit = command({
  summary: 'Validate a WIT-SVID and its proof, as headers of a request',
  about:
    'The headers are read from standard input, one a line, as "fetch wit --audience" prints them and a server receives them; others are passed over. They are checked here, by the bundles that the agent gives this process. A proof that was used before is not noticed: that takes a service that remembers.',
  flags: {
    audience: required(text('AUDIENCE', 'Whom the proof must be made for')),
    timeout,
    output,
    socket: workloadSocket,
  },
  examples: [
    [
      'mutual fetch wit --audience https://db.example.org | mutual validate wit --audience https://db.example.org',
      'Check a WIT-SVID of your own',
    ],
  ],
  async run(values, ports) {
    const { token, proof } = witFromHeaders(headersIn(await ports.stdin()));
    if (token === undefined) {
      throw new Fault('usage/invalid', `standard input has no header ${quote(witHeader)}`, {
        hint: 'Pipe in what "mutual fetch wit --audience AUDIENCE" prints, or the headers of a request.',
      });
    }
    const { bundles } = await withWorkload(values.socket, ports, (workload) =>
      workload.first('FetchWITBundles', {}, values.timeout),
    );
    const held = parseWitBundles(bundles);
    const presented = proof === undefined ? undefined : { token: proof, audience: values.audience };
    const now = ports.clock.now();
    const { id, claims, expiresAt } = await verifyWitSvid(token, (domain) => held.get(domain), now, presented);
    if (values.output === 'json') ports.out(jsonLine({ claims, spiffe_id: id }));
    else {
      ports.out(
        `The SVID is valid, and its proof.\n${block(ports, [
          ['SPIFFE ID', id],
          ['Valid until', printDeadline(expiresAt / 1000, now)],
          ['Claims', JSON.stringify(claims)],
        ])}`,
      );
    }
    return 0;
  },
});

/** Lines with a colon; what stands before it is the name. */
function headersIn(text: string): Record<string, string[]> {
  const headers: Record<string, string[]> = Object.create(null);
  for (const line of text.split(/\r?\n/)) {
    const at = line.indexOf(':');
    if (at <= 0) continue;
    const name = line.slice(0, at).trim().toLowerCase();
    headers[name] ??= [];
    headers[name].push(line.slice(at + 1).trim());
  }
  return headers;
}
