/** The agent's options: one table, checks across them, and the type everything else of the agent is written against. */

import { dirname, normalize, sep } from 'node:path';
import { brokerRules, brokerSection } from '../src/config/broker.ts';
import { keyManagerSections, keysRules, sealSection } from '../src/config/keys.ts';
import {
  choice,
  count,
  duration,
  hostPort,
  httpsUrl,
  listOf,
  path,
  sha256,
  socketPath,
  spiffeId,
  text,
  toggle,
  trustDomain,
} from '../src/config/kinds.ts';
import { type Reading, readOptions, type Sources } from '../src/config/read.ts';
import { mlDsaRules, ownSocketRules, sharedSections } from '../src/config/shared.ts';
import { svidStoreSections } from '../src/config/svid-stores.ts';
import { workloadAttestorRules, workloadAttestorSections } from '../src/config/workload-attestors.ts';
import {
  derived,
  type OptionsOf,
  optional,
  optionalSection,
  type Program,
  type Rule,
  reloadable,
  required,
  section,
  setting,
} from '../src/config.ts';
import { classicKeyTypeNames, keyTypeNames } from '../src/crypto/algorithms.ts';
import { quote } from '../src/errors.ts';

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

const keyType = choice(...keyTypeNames);

export const agentTable = {
  trustDomain: required(trustDomain, 'The trust domain of the server.'),
  server: required(hostPort(1), 'Where the server listens.'),
  dataDir: setting(
    path,
    '.mutual/agent',
    'Where the identity of the agent is kept over a restart. Only the agent may read it.',
  ),
  socket: derived(
    socketPath,
    '<dataDir>/public/api.sock',
    (of) => `${of('dataDir')}/public/api.sock`,
    'The socket of the Workload API, which every local process may open.',
    { env: 'SPIFFE_ENDPOINT_SOCKET' },
  ),
  adminSocket: derived(
    socketPath,
    '<dataDir>/private/admin.sock',
    (of) => `${of('dataDir')}/private/admin.sock`,
    'The socket on which the agent is administered. It may not lie beside or below the socket of the Workload API.',
    { env: 'MUTUAL_AGENT_ADMIN_SOCKET' },
  ),
  joinToken: optional(
    text,
    'The join token for the first attestation. Better in the variable or a file: others can read a command line.',
    {
      secret: true,
      env: 'MUTUAL_JOIN_TOKEN',
    },
  ),
  joinTokenFile: optional(path, 'A file with the join token for the first attestation.'),
  trustBundle: optional(
    path,
    'A file with the bundle of the trust domain, PEM or SPIFFE JSON, to know the server by at first.',
  ),
  trustBundleUrl: optional(httpsUrl, 'Fetches that bundle, over https as the machine trusts it.'),
  trustRootHash: optional(sha256, 'Takes the root from the server itself when its certificate has this SHA-256.'),
  insecureBootstrap: setting(
    toggle,
    false,
    'Believes the first server that answers. For trials: whoever can answer in its place owns the agent.',
  ),
  nodeAttestor: section(
    'How this node proves what it is. With nothing here and no join token it can only go on from its data directory.',
    {
      x509pop: optionalSection('A certificate the node has from elsewhere, and its key.', {
        privateKeyPath: required(path, 'The PEM file of the key.'),
        certificatePath: required(path, 'The PEM file of the certificate, with intermediates behind it if need be.'),
        intermediatesPath: optional(
          path,
          'A PEM file of intermediates, when they are not in the file of the certificate.',
        ),
      }),
    },
  ),
  workloadKeyType: setting(keyType, 'ec-p256', 'The key type of X.509-SVIDs.'),
  agentKeyType: setting(
    keyType,
    'ec-p256',
    "The key type of the agent's own SVID, from its next attestation or renewal on.",
  ),
  availabilityTarget: optional(
    duration(day, 3650 * day),
    'Renews SVIDs so early that each outlives an outage of the server of this length. At least 24h.',
  ),
  x509SvidCacheSize: setting(
    count(1, 1_000_000),
    1000,
    'How many X.509-SVIDs are kept ready that nobody is subscribed to.',
  ),
  witSvids: section('WIT-SVIDs, see [WIT-SVIDs](wit.md).', {
    enabled: setting(
      toggle,
      false,
      'Offers them to workloads, below a server that issues them. Off, since the standard calls them incubating and may still change.',
    ),
    keyType: setting(
      choice(...classicKeyTypeNames),
      'ec-p256',
      'The key type of WIT-SVIDs, with which workloads sign their proofs.',
    ),
  }),
  jwtSvidCacheSize: setting(count(1, 1_000_000), 1000, 'How many JWT-SVIDs are kept.'),
  syncInterval: setting(
    duration(second, hour),
    5 * second,
    'How often a server is asked for news that cannot push them.',
  ),
  ...reloadable({
    allowUnauthenticatedVerifiers: setting(toggle, false, 'Gives bundles also to processes that no entry describes.'),
    allowedForeignJwtClaims: setting(
      listOf(text),
      [],
      'Claims of JWT-SVIDs of other trust domains that are told to workloads beside `sub`, `exp` and `aud`.',
    ),
    authorizedDelegates: setting(
      listOf(spiffeId),
      [],
      'SPIFFE IDs of workloads that may have the identities of other workloads, over the Delegated Identity API.',
    ),
    workloadAttestors: section('How the agent learns who opened the socket.', {
      unix: section('What the kernel knows of the process: user, groups, and the program if asked.', {
        discoverWorkloadPath: setting(toggle, false, 'Adds the path and the SHA-256 of the program.'),
        workloadSizeLimit: setting(
          count(-1, Number.MAX_SAFE_INTEGER),
          0,
          'The largest program to hash, in bytes; 0 is no limit, -1 never hashes.',
        ),
      }),
      ...workloadAttestorSections,
    }),
    limits: section('What one user of this node may take of the agent, so that others do not notice.', {
      connectionsPerUser: setting(
        count(1, 1_000_000),
        8_192,
        'Connections at a time to the socket of the Workload API; more are closed at once.',
      ),
      callsPerUser: setting(count(1, 1_000_000), 16_384, 'Calls and streams open at a time; more are refused.'),
      callsPerSecond: setting(
        count(0, 1_000_000),
        0,
        'Calls and streams that one process may begin in a second; 0 is no limit.',
      ),
    }),
  }),
  svidStores: section('Where SVIDs of entries with `storeSvid` are put, which no process gets.', svidStoreSections),
  sds: section('What Envoys get, over SDS on the socket of the Workload API.', {
    enabled: setting(toggle, true, 'Serves SDS.'),
    defaultSvidName: setting(text, 'default', 'The resource name for the default X.509-SVID and its key.'),
    defaultBundleName: setting(
      text,
      'ROOTCA',
      'The resource name for what peers of the own trust domain are verified by.',
    ),
    defaultAllBundlesName: setting(
      text,
      'ALL',
      'The resource name for what peers of the own and of all federated trust domains are verified by.',
    ),
    disableSpiffeCertValidation: setting(
      toggle,
      false,
      'Gives Envoys plain trusted certificates in place of the validator of SPIFFE IDs; `disable_spiffe_cert_validation`' +
        ' in the metadata of a node overrides it.',
    ),
    requireHeader: setting(
      toggle,
      false,
      'Refuses Envoys that do not send `workload.spiffe.io: true`, which they do when it is in their `initial_metadata`.',
    ),
  }),
  broker: brokerSection,
  keys: section('The keys of the agent.', {
    store: setting(
      choice('disk', 'memory'),
      'disk',
      '`disk` keeps them in the data directory, mode 0600; with `memory` every start attests anew.',
    ),
    seal: sealSection,
    vault: keyManagerSections.vault,
    awsKms: keyManagerSections.awsKms,
    gcpKms: keyManagerSections.gcpKms,
    azureKeyVault: keyManagerSections.azureKeyVault,
  }),
  ...sharedSections,
} as const;

type FromTable = OptionsOf<typeof agentTable>;
export interface AgentOptions extends FromTable {}

const sdsNames = ['defaultSvidName', 'defaultBundleName', 'defaultAllBundlesName'] as const;
const bootstraps = ['trustBundle', 'trustBundleUrl', 'trustRootHash', 'insecureBootstrap'] as const;

const rules: readonly Rule<AgentOptions>[] = [
  ...mlDsaRules('workloadKeyType', 'agentKeyType'),
  ...ownSocketRules('socket', 'adminSocket'),
  ...keysRules,
  ...workloadAttestorRules,
  ...brokerRules,
  {
    needs: [
      'joinToken',
      'joinTokenFile',
      'nodeAttestor.x509pop.privateKeyPath',
      'nodeAttestor.x509pop.certificatePath',
    ],
    check(options, report) {
      const given = [
        ...(options.joinToken === undefined ? [] : ['joinToken']),
        ...(options.joinTokenFile === undefined ? [] : ['joinTokenFile']),
        ...(options.nodeAttestor.x509pop === undefined ? [] : ['nodeAttestor.x509pop']),
      ];
      if (given.length > 1)
        report.fault(given[1]!, `is given beside ${given[0]}; a node proves itself in one way: keep one`);
    },
  },
  {
    needs: sdsNames.map((name) => `sds.${name}`),
    check({ sds }, report) {
      for (const [at, name] of sdsNames.entries()) {
        const same = sdsNames.slice(0, at).find((other) => sds[other] === sds[name]);
        if (same === undefined) continue;
        report.fault(`sds.${name}`, `${quote(sds[name])} is also sds.${same}; one name has to stand for one secret`);
      }
    },
  },
  {
    needs: bootstraps,
    check(options, report) {
      const given = bootstraps.filter((key) => options[key] !== undefined && options[key] !== false);
      if (given.length === 0) {
        report.fault(
          'trustBundle',
          'the agent has nothing to know the server by; give one of --trust-bundle, --trust-bundle-url, --trust-root-hash' +
            ' (or --insecure-bootstrap for a trial)',
        );
      } else if (given.length > 1) {
        report.fault(given[1]!, `is given beside ${given[0]}; keep one`);
      }
      if (options.insecureBootstrap) {
        report.warn('insecureBootstrap', 'the first server that answers is believed; never do this outside a trial');
      }
    },
  },
  {
    needs: ['socket', 'adminSocket'],
    check({ socket, adminSocket }, report) {
      const open = `${dirname(normalize(socket))}${sep}`;
      if (!`${dirname(normalize(adminSocket))}${sep}`.startsWith(open)) return;
      report.fault(
        'adminSocket',
        `${quote(adminSocket)} lies in the directory of the Workload API's socket, which every process may enter: choose another directory`,
      );
    },
  },
];

export const agentProgram: Program<typeof agentTable, AgentOptions> = { name: 'agent', table: agentTable, rules };

/** Reads the agent's options. Throws `config/invalid` with every fault. */
export function readAgentOptions(
  sources: Sources,
): Promise<Reading<AgentOptions> & { readonly options: AgentOptions }> {
  return readOptions(agentProgram, sources);
}
