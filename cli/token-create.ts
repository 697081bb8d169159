import { idToWire } from '../src/wire/id.ts';
import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { printDeadline } from './duration.ts';
import { adminSocket, id, output, seconds, text, withDefault } from './flags.ts';
import { jsonLine } from './json.ts';

export const tokenCreate = command({
  summary: 'Create a one-time token with which an agent joins',
  about:
    'Prints the token alone on standard output. Give it to "mutual agent run" in a file (--join-token-file), a variable (MUTUAL_JOIN_TOKEN) or on standard input (--join-token-file -): what stands on a command line can be read by every user of a machine.',
  flags: {
    spiffeId: id('ALIAS', 'A name for the agent, which entries can use as their parent'),
    ttl: withDefault(seconds('How long the token can be used'), 600),
    token: text('TEXT', 'The token itself, where it must be agreed in advance; the server makes one otherwise'),
    output,
    adminSocket,
  },
  examples: [
    [
      'mutual token create --spiffe-id spiffe://example.org/local > token',
      'A token for an agent that entries call spiffe://example.org/local',
    ],
  ],
  async run(values, ports, called) {
    const token = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('agent', 'CreateJoinToken', {
        ttl: values.ttl,
        token: values.token ?? '',
        ...(values.spiffeId && { agent_id: idToWire(values.spiffeId) }),
      }),
    );
    if (values.output === 'json') {
      ports.out(jsonLine({ value: token.value, expires_at: token.expires_at }));
      return 0;
    }
    // Scripts written for SPIRE's command take the second word.
    ports.out(called === 'token generate' ? `Token: ${token.value}\n` : `${token.value}\n`);
    ports.err(`The token can be used once, until ${printDeadline(Number(token.expires_at), ports.clock.now())}.\n`);
    if (values.spiffeId === undefined) {
      ports.err('It has no alias: give --spiffe-id to have a name for the agent that outlives it.\n');
    }
    return 0;
  },
});
