import { agentTable } from '../agent/config.ts';
import { Fault } from '../src/errors.ts';
import { command } from './command.ts';
import { joinHostPort, sourcesReader, tableFlags } from './config-flags.ts';
import { text } from './flags.ts';

export const agentRun = command({
  summary: 'Run the agent of this node',
  about:
    'Runs until SIGINT or SIGTERM; on SIGHUP it reads its file again. A join token is read from a file (--join-token-file), MUTUAL_JOIN_TOKEN, or standard input (--join-token-file -): what stands on a command line can be read by every user of the machine. "mutual config explain agent" shows all options.',
  flags: {
    ...tableFlags(agentTable, { socket: ['socketpath'] }),
    serverAddress: text('HOST', "SPIRE's spelling of the host in --server"),
    serverPort: text('PORT', "SPIRE's spelling of the port in --server"),
  },
  examples: [
    [
      'mutual agent run --trust-domain example.org --server server:8081 --trust-bundle bundle.pem --join-token-file token',
      'Join with a token; later starts need none',
    ],
  ],
  async run(values, ports) {
    const joined = joinHostPort(values, 'server', 'serverAddress', 'serverPort', { host: '127.0.0.1', port: '8081' });
    const { joinToken, joinTokenFile, ...rest } = joined;
    const flags: Record<string, unknown> = { ...rest };
    if (joinToken === '-' || joinTokenFile === '-') {
      const token = (await ports.stdin()).trim();
      if (token === '')
        throw new Fault('usage/invalid', 'standard input has no join token', {
          hint: 'Pipe it in: mutual token create | mutual agent run --join-token-file - ...',
        });
      flags.joinToken = token;
    } else {
      Object.assign(flags, { joinToken, joinTokenFile });
      if (joinToken !== undefined)
        ports.err(
          'note: other users of this machine can read a token on a command line; --join-token-file and MUTUAL_JOIN_TOKEN hide it\n',
        );
    }
    const { runAgent } = await import('../agent/main.ts');
    await runAgent(sourcesReader(flags, ports));
    return 0;
  },
});
