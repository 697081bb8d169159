import { join, resolve } from 'node:path';
import { jwkSigner } from '../src/crypto/jwk-signer.ts';
import { decodeJwt } from '../src/crypto/jwt.ts';
import { Fault } from '../src/errors.ts';
import { writeFileAtomic } from '../src/run/file.ts';
import { makeWitProof, proofHeader, witHeader } from '../src/spiffe/wit-proof.ts';
import type { Message } from './caller.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { id, output, text, timeout, workloadSocket } from './flags.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { table } from './table.ts';
import { withWorkload } from './workload.ts';
import { inDirectory } from './write-svid.ts';

export const fetchWit = command({
  summary: 'Fetch the WIT-SVIDs of this process',
  about:
    'A token is worth nothing without a proof by its key. With --audience, two headers are printed: the token, and a proof for that recipient, good for one request and half a minute. With --write, token and key (a JSON Web Key) are put into files, mode 0600; further SVIDs get token.1 and so on.',
  flags: {
    audience: text('AUDIENCE', 'Print headers for a request to this recipient'),
    spiffeId: id('SPIFFE-ID', 'Only this identity'),
    write: text('DIR', 'Write tokens and keys into this directory'),
    timeout,
    output,
    socket: workloadSocket,
  },
  examples: [
    [
      'mutual fetch wit --audience https://db.example.org | curl -H @- https://db.example.org',
      'Call a service that takes WIT-SVIDs',
    ],
  ],
  async run(values, ports) {
    const request = values.spiffeId === undefined ? {} : { spiffe_id: values.spiffeId };
    const response = await withWorkload(values.socket, ports, (workload) =>
      workload.first('FetchWITSVID', request, values.timeout),
    );
    const svids: Message[] = response.svids;
    const { audience } = values;
    const headers = audience === undefined ? undefined : headersOf(svids, audience, ports);
    const written = values.write === undefined ? [] : await writeWits(values.write, svids, ports);
    if (values.output === 'json') {
      // Keys that went into files are not shown again, and headers are shown without.
      const isKept = headers !== undefined || written.length > 0;
      const shown = isKept ? svids.map(({ wit_svid_key: _, ...svid }: Message) => svid) : svids;
      ports.out(jsonLine({ svids: shown, ...(headers && { headers }) }));
    } else if (headers !== undefined) {
      for (const [name, value] of Object.entries(headers)) ports.out(`${name}: ${value}\n`);
    } else {
      ports.out(witTable(svids, ports));
      if (written.length > 0) ports.out(`\n${written.map((path) => `Wrote ${path}\n`).join('')}`);
    }
    return 0;
  },
});

/** What a request carries. A request comes from one identity, so that several have to be chosen among. */
function headersOf(svids: readonly Message[], audience: string, ports: Ports): Record<string, string> {
  const [svid, ...others] = svids;
  if (others.length > 0) {
    throw new Fault('usage/invalid', `the process has ${svids.length} identities, and a request comes from one`, {
      hint: `Give --spiffe-id with one of ${svids.map(({ spiffe_id }) => spiffe_id).join(', ')}.`,
    });
  }
  const key = jwkSigner(svid.wit_svid_key);
  const proofId = ports.random.bytes(16).toString('base64url');
  const proof = makeWitProof(svid.wit_svid, key, audience, proofId, ports.clock.now());
  return { [witHeader]: svid.wit_svid, [proofHeader]: proof };
}

async function writeWits(write: string, svids: readonly Message[], ports: Ports): Promise<readonly string[]> {
  const directory = resolve(ports.directory, write);
  const files = svids.flatMap(({ wit_svid, wit_svid_key }, index) => {
    const name = (base: string): string => join(directory, index === 0 ? base : `${base}.${index}`);
    // The key first: whoever sees the new token finds its key there already.
    return [
      [name('key'), wit_svid_key],
      [name('token'), wit_svid],
    ] as [string, string][];
  });
  await inDirectory(directory, async () => {
    for (const [path, content] of files) await writeFileAtomic(path, content, 0o600);
  });
  return files.map(([path]) => path);
}

function witTable(svids: readonly Message[], ports: Ports): string {
  const hasHints = svids.some(({ hint }) => hint !== '');
  return table(
    ports,
    ['SPIFFE ID', ...(hasHints ? ['HINT'] : []), 'VALID UNTIL', 'AUTHORITY'],
    svids.map(({ spiffe_id, hint, wit_svid }) => {
      const { header, claims } = decodeJwt(wit_svid);
      return [
        spiffe_id,
        ...(hasHints ? [hint] : []),
        printDeadline(Number(claims.exp), ports.clock.now()),
        String(header.kid),
      ];
    }),
  );
}
