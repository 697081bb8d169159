import { Fault } from '../src/errors.ts';
import { command } from './command.ts';
import { output, required, text, timeout, workloadSocket } from './flags.ts';
import { jsonLine, plainStruct } from './json.ts';
import { block } from './table.ts';
import { withWorkload } from './workload.ts';

export const validateJwt = command({
  summary: 'Have the agent validate a JWT-SVID',
  flags: {
    audience: required(text('AUDIENCE', 'Whom the token must be meant for')),
    svid: text('TOKEN', 'The token; - or nothing reads standard input, where other users cannot see it', {
      defaultText: '-',
    }),
    timeout,
    output,
    socket: workloadSocket,
  },
  examples: [['mutual fetch jwt --audience me | mutual validate jwt --audience me', 'Check an SVID of your own']],
  async run(values, ports) {
    const svid = values.svid === undefined || values.svid === '-' ? (await ports.stdin()).trim() : values.svid;
    if (svid === '')
      throw new Fault('usage/invalid', 'standard input has no token', {
        hint: 'Pipe the token in, or give --svid TOKEN.',
      });
    const response = await withWorkload(values.socket, ports, (workload) =>
      workload.call('ValidateJWTSVID', { audience: values.audience, svid }, values.timeout),
    ).catch((error: unknown) => {
      if (!(error instanceof Fault) || error.status !== 3) throw error;
      throw new Fault('svid/invalid', `the SVID is not valid: ${error.message}`, {
        cause: error,
        ...(error.hint !== undefined && { hint: error.hint }),
      });
    });
    const claims = plainStruct(response.claims);
    if (values.output === 'json') ports.out(jsonLine({ claims, spiffe_id: response.spiffe_id }));
    else {
      ports.out(
        `The SVID is valid.\n${block(ports, [
          ['SPIFFE ID', response.spiffe_id],
          ['Claims', JSON.stringify(claims)],
        ])}`,
      );
    }
    return 0;
  },
});
