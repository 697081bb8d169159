/** `upstream-authority taint | revoke`: a root above the servers, which their X.509 authorities have left. */
import { withAdmin } from './admin.ts';
import { type Command, command } from './command.ts';
import { adminSocket, output, required, text } from './flags.ts';
import { jsonLine } from './json.ts';
import { block } from './table.ts';

const steps = {
  taint: {
    verb: 'Taint',
    done: 'Tainted',
    summary: 'Have everything below an upstream authority issued anew',
    about:
      'Give a root that the active authority does not lead to any more: prepare and activate another one first. Agents replace at once whatever hangs on it, and so does every other server with its authority. Revoke it when nothing depends on it any more.',
  },
  revoke: {
    verb: 'Revoke',
    done: 'Revoked',
    summary: 'Take a tainted upstream authority out of the bundle',
    about:
      'From then on whatever hangs on it is refused everywhere, and it is not taken up again, also when the upstream authority still names it. There is no way back. See "authority x509 show" of every server first.',
  },
} as const;

export function upstreamStep(step: keyof typeof steps): Command {
  const { verb, done, summary, about } = steps[step];
  return command({
    summary,
    about,
    flags: {
      subjectKeyId: required(text('ID', 'The root, as "authority x509 show" names it')),
      output,
      adminSocket,
    },
    async run(values, ports) {
      const response = await withAdmin(values.adminSocket, ports, (admin) =>
        admin.call('authority', `${verb}X509UpstreamAuthority`, { subject_key_id: values.subjectKeyId }),
      );
      const told = block(ports, [[done, response.upstream_authority_subject_key_id]]);
      ports.out(values.output === 'json' ? jsonLine(response) : told);
      return 0;
    },
  });
}
