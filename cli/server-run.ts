import { serverTable } from '../server/config.ts';
import { command } from './command.ts';
import { joinHostPort, sourcesReader, tableFlags } from './config-flags.ts';
import { text } from './flags.ts';

export const serverRun = command({
  summary: 'Run the server of a trust domain',
  about:
    'Runs until SIGINT or SIGTERM; on SIGHUP it reads its file again. Flags win over variables, variables over the file, the file over defaults; "mutual config explain server" shows all of them.',
  flags: {
    ...tableFlags(serverTable, { adminSocket: ['socketpath'] }),
    bindAddress: text('HOST', "SPIRE's spelling of the host in --listen"),
    serverPort: text('PORT', "SPIRE's spelling of the port in --listen"),
  },
  examples: [
    [
      'mutual server run --trust-domain example.org --data-dir /var/lib/mutual/server',
      'A server with its data in one place',
    ],
  ],
  async run(values, ports) {
    const joined = joinHostPort(values, 'listen', 'bindAddress', 'serverPort', { host: '0.0.0.0', port: '8081' });
    const { runServer } = await import('../server/main.ts');
    await runServer(sourcesReader(joined, ports));
    return 0;
  },
});
