/** Every command, in the order of help. A command's file is loaded when it is called, so that small ones start fast. */
import type { Command } from './command.ts';

export interface Listed {
  /** The words it is called by. */
  readonly path: string;
  readonly summary: string;
  /** Other words for it, SPIRE's among them. */
  readonly also?: readonly string[];
  load(): Promise<Command>;
  /** Lets come up what takes long, while the command is loaded and its flags are read. Its failure is the command's to meet. */
  readonly begin?: () => void;
}

const listed = (path: string, summary: string, load: () => Promise<Command>, also: readonly string[] = []): Listed => ({
  path,
  summary,
  load,
  also,
});

export const commands: readonly Listed[] = [
  listed('up', 'Start a server and an agent here and get a first SVID', async () => (await import('./up.ts')).up),
  {
    ...listed(
      'server run',
      'Run the server of a trust domain',
      async () => (await import('./server-run.ts')).serverRun,
    ),
    begin: () => void import('../server/store/thread.ts').then(({ beginThread }) => beginThread()),
  },
  listed(
    'server migrate',
    'Bring the database to the schema of this version',
    async () => (await import('./server-migrate.ts')).serverMigrate,
  ),
  listed(
    'server reseal',
    'Change the passphrase that seals the keys of a server',
    async () => (await import('./server-reseal.ts')).serverReseal,
  ),
  listed('agent run', 'Run the agent of this node', async () => (await import('./agent-run.ts')).agentRun),
  listed(
    'agent reseal',
    'Change the passphrase that seals the keys of an agent',
    async () => (await import('./agent-reseal.ts')).agentReseal,
  ),
  listed(
    'token create',
    'Create a one-time token with which an agent joins',
    async () => (await import('./token-create.ts')).tokenCreate,
    ['token generate'],
  ),
  listed(
    'entry create',
    'Register which workloads get a SPIFFE ID',
    async () => (await import('./entry-create.ts')).entryCreate,
  ),
  listed('entry show', 'Show registration entries in full', async () => (await import('./entry-show.ts')).entryShow),
  listed(
    'entry list',
    'List registration entries, one a line',
    async () => (await import('./entry-list.ts')).entryList,
  ),
  listed('entry update', 'Replace a registration entry', async () => (await import('./entry-update.ts')).entryUpdate),
  listed('entry delete', 'Delete registration entries', async () => (await import('./entry-delete.ts')).entryDelete),
  listed('entry count', 'Count registration entries', async () => (await import('./entry-count.ts')).entryCount),
  listed('agent list', 'List attested agents', async () => (await import('./agent-list.ts')).agentList),
  listed('agent show', 'Show one attested agent', async () => (await import('./agent-show.ts')).agentShow),
  listed('explain', 'Say why a process got no identity', async () => (await import('./explain.ts')).explain),
  listed(
    'agent status',
    'Show how the agent of this node stands and how long it can last alone',
    async () => (await import('./agent-status.ts')).agentStatus,
  ),
  listed('agent ban', 'Shut an agent out for good', async () => (await import('./agent-ban.ts')).agentBan),
  listed(
    'agent evict',
    'Forget an agent, which may attest again',
    async () => (await import('./agent-evict.ts')).agentEvict,
  ),
  listed('agent count', 'Count attested agents', async () => (await import('./agent-count.ts')).agentCount),
  listed(
    'agent purge',
    'Forget agents whose SVIDs have long expired',
    async () => (await import('./agent-purge.ts')).agentPurge,
  ),
  listed(
    'bundle show',
    'Print the trust bundle of the server',
    async () => (await import('./bundle-show.ts')).bundleShow,
  ),
  listed(
    'bundle list',
    'Print the bundles of other trust domains',
    async () => (await import('./bundle-list.ts')).bundleList,
  ),
  listed(
    'bundle set',
    'Store the bundle of another trust domain',
    async () => (await import('./bundle-set.ts')).bundleSet,
  ),
  listed(
    'bundle delete',
    'Delete the bundle of another trust domain',
    async () => (await import('./bundle-delete.ts')).bundleDelete,
  ),
  listed('bundle count', 'Count trust bundles', async () => (await import('./bundle-count.ts')).bundleCount),
  listed(
    'federation create',
    'Follow the bundle of another trust domain',
    async () => (await import('./federation-create.ts')).federationCreate,
  ),
  listed(
    'federation show',
    'Show one federation relationship',
    async () => (await import('./federation-show.ts')).federationShow,
  ),
  listed(
    'federation list',
    'List federation relationships',
    async () => (await import('./federation-list.ts')).federationList,
  ),
  listed(
    'federation update',
    'Change a federation relationship',
    async () => (await import('./federation-update.ts')).federationUpdate,
  ),
  listed(
    'federation delete',
    'Stop following another trust domain',
    async () => (await import('./federation-delete.ts')).federationDelete,
  ),
  listed(
    'federation refresh',
    "Fetch another trust domain's bundle now",
    async () => (await import('./federation-refresh.ts')).federationRefresh,
  ),
  listed('x509 mint', 'Have the server sign an X.509-SVID', async () => (await import('./x509-mint.ts')).x509Mint),
  listed('jwt mint', 'Have the server sign a JWT-SVID', async () => (await import('./jwt-mint.ts')).jwtMint),
  listed('wit mint', 'Have the server sign a WIT-SVID', async () => (await import('./wit-mint.ts')).witMint),
  listed(
    'fetch x509',
    'Fetch the X.509-SVIDs of this process',
    async () => (await import('./fetch-x509.ts')).fetchX509,
    ['fetch', 'api fetch', 'api fetch x509'],
  ),
  listed('fetch jwt', 'Fetch a JWT-SVID of this process', async () => (await import('./fetch-jwt.ts')).fetchJwt, [
    'api fetch jwt',
  ]),
  listed('fetch wit', 'Fetch the WIT-SVIDs of this process', async () => (await import('./fetch-wit.ts')).fetchWit),
  listed(
    'fetch bundles',
    'Fetch the bundles this process may trust',
    async () => (await import('./fetch-bundles.ts')).fetchBundles,
    ['api fetch bundles'],
  ),
  listed(
    'validate jwt',
    'Have the agent validate a JWT-SVID',
    async () => (await import('./validate-jwt.ts')).validateJwt,
    ['api validate jwt'],
  ),
  listed(
    'validate wit',
    'Validate a WIT-SVID and its proof, as headers of a request',
    async () => (await import('./validate-wit.ts')).validateWit,
  ),
  listed(
    'watch',
    'Print each update of the X.509-SVIDs of this process',
    async () => (await import('./watch.ts')).watch,
    ['api watch'],
  ),
  listed(
    'broker watch',
    'Follow the X.509-SVIDs of other workloads, as their broker',
    async () => (await import('./broker-watch.ts')).brokerWatch,
  ),
  listed('health', 'Ask the server or the agent whether it is well', async () => (await import('./health.ts')).health, [
    'healthcheck',
  ]),
  ...(['x509', 'jwt', 'wit'] as const).flatMap((kind) => {
    const name = kind === 'x509' ? 'X.509' : kind.toUpperCase();
    const one = (step: string, summary: string, load: () => Promise<Command>): Listed =>
      listed(`authority ${kind} ${step}`, summary, load, [`localauthority ${kind} ${step}`]);
    return [
      one('show', `Show the ${name} authorities of this server`, async () =>
        (await import('./authority.ts')).authorityShow(kind),
      ),
      one('prepare', `Make the next ${name} authority and publish it`, async () =>
        (await import('./authority.ts')).authorityPrepare(kind),
      ),
      one('activate', `Let the prepared ${name} authority sign`, async () =>
        (await import('./authority.ts')).authorityStep(kind, 'activate'),
      ),
      one('taint', `Have everything under the old ${name} authority issued anew`, async () =>
        (await import('./authority.ts')).authorityStep(kind, 'taint'),
      ),
      one('revoke', `Take the tainted ${name} authority out of the bundle`, async () =>
        (await import('./authority.ts')).authorityStep(kind, 'revoke'),
      ),
    ];
  }),
  listed(
    'upstream-authority taint',
    'Have everything below an upstream authority issued anew',
    async () => (await import('./upstream-authority.ts')).upstreamStep('taint'),
    ['upstreamauthority taint'],
  ),
  listed(
    'upstream-authority revoke',
    'Take a tainted upstream authority out of the bundle',
    async () => (await import('./upstream-authority.ts')).upstreamStep('revoke'),
    ['upstreamauthority revoke'],
  ),
  listed(
    'svid revoke',
    'Take back SVIDs before they expire',
    async () => (await import('./svid-revoke.ts')).svidRevoke,
  ),
  listed(
    'svid revoked',
    'List what is revoked and has not expired',
    async () => (await import('./svid-revoked.ts')).svidRevoked,
  ),
  listed(
    'authority rotate',
    'Replace the signing authorities of all servers, and prove that it reached everyone',
    async () => (await import('./authority-rotate.ts')).authorityRotate,
  ),
  listed('logger get', 'Show the log level', async () => (await import('./logger.ts')).loggerGet),
  listed('logger set', 'Set the log level until the next start', async () => (await import('./logger.ts')).loggerSet),
  listed(
    'logger reset',
    'Set the log level back to what it was at start',
    async () => (await import('./logger.ts')).loggerReset,
  ),
  listed(
    'debug info',
    'Show uptime, counts and the SVID of the server or the agent',
    async () => (await import('./debug-info.ts')).debugInfo,
    ['debug', 'debug getinfo'],
  ),
  listed(
    'config explain',
    'Explain the options of both programs',
    async () => (await import('./config-explain.ts')).configExplain,
  ),
  listed(
    'config explain server',
    'Explain the options of the server',
    async () => (await import('./config-explain.ts')).configExplainServer,
  ),
  listed(
    'config explain agent',
    'Explain the options of the agent',
    async () => (await import('./config-explain.ts')).configExplainAgent,
  ),
  listed('config check', 'Check a configuration file', async () => (await import('./config-check.ts')).configCheck, [
    'validate',
  ]),
  listed(
    'config check server',
    'Check the configuration of the server',
    async () => (await import('./config-check.ts')).configCheckServer,
  ),
  listed(
    'config check agent',
    'Check the configuration of the agent',
    async () => (await import('./config-check.ts')).configCheckAgent,
  ),
  listed(
    'completion bash',
    'Print a script that completes commands in bash',
    async () => (await import('./completion.ts')).bash,
  ),
  listed(
    'completion zsh',
    'Print a script that completes commands in zsh',
    async () => (await import('./completion.ts')).zsh,
  ),
  listed(
    'completion fish',
    'Print a script that completes commands in fish',
    async () => (await import('./completion.ts')).fish,
  ),
  listed(
    'completion powershell',
    'Print a script that completes commands in PowerShell',
    async () => (await import('./completion.ts')).powershell,
  ),
  listed('version', 'Print the version', async () => (await import('./version.ts')).version),
];

/** What the first words of a command line call. */
export type Called =
  | { readonly kind: 'command'; readonly listed: Listed; readonly called: string; readonly rest: readonly string[] }
  | { readonly kind: 'group'; readonly path: string; readonly rest: readonly string[] };

/** Finds the command with the longest path the words begin with; else the group (the empty path is all commands). */
export function resolve(words: readonly string[]): Called {
  const flagAt = words.findIndex((word) => word.startsWith('-'));
  const names = flagAt < 0 ? words : words.slice(0, flagAt);
  for (let length = Math.min(names.length, 3); length > 0; length--) {
    const path = names.slice(0, length).join(' ');
    const found = commands.find((each) => each.path === path || each.also?.includes(path));
    const isGroupToo = groupOf(path).length > 0;
    if (found && !(isGroupToo && names.length > length)) {
      return { kind: 'command', listed: found, called: path, rest: words.slice(length) };
    }
    if (isGroupToo) return { kind: 'group', path, rest: words.slice(length) };
  }
  return { kind: 'group', path: '', rest: words };
}

/** The commands below some words; all of them below none. */
export function groupOf(path: string): readonly Listed[] {
  return path === '' ? commands : commands.filter((each) => each.path.startsWith(`${path} `));
}
