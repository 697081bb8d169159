/** The server's options: one table, checks across them, and the type everything else of the server is written against. */

import { printDuration } from '../src/config/duration.ts';
import { keyManagerSections, keysRules, sealSection } from '../src/config/keys.ts';
import {
  choice,
  count,
  duration,
  fileMode,
  type HostPort,
  hostPort,
  listOf,
  path,
  socketPath,
  spiffeId,
  text,
  toggle,
  trustDomain,
} from '../src/config/kinds.ts';
import { type Reading, readOptions, type Sources } from '../src/config/read.ts';
import { mlDsaRules, ownSocketRules, sharedSections } from '../src/config/shared.ts';
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
import { classicKeyTypeNames, isMlDsa, type KeyType, keyTypeNames } from '../src/crypto/algorithms.ts';
import { quote } from '../src/errors.ts';
import { upstreamRules, upstreamSection } from './upstream/options.ts';

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;
const lifetime = duration(second, 3650 * day);
const classicKeyType = choice(...classicKeyTypeNames);
const keyType = choice(...keyTypeNames);
const perSecond = count(0, 1_000_000);

export const serverTable = {
  trustDomain: required(trustDomain, 'The trust domain this server is the authority of.'),
  dataDir: setting(
    path,
    '.mutual/server',
    'Where keys and the embedded database are kept. Only the server may read it.',
  ),
  listen: setting<HostPort>(
    hostPort(0),
    { host: '0.0.0.0', port: 8081 },
    'Where agents connect. Port 0 takes a free one.',
  ),
  adminSocket: derived(
    socketPath,
    '<dataDir>/private/api.sock',
    (of) => `${of('dataDir')}/private/api.sock`,
    'The socket on which the command line and other tools administer the server.',
    { env: 'MUTUAL_ADMIN_SOCKET' },
  ),
  adminSocketMode: setting(
    fileMode,
    0o770,
    'The mode of the admin socket: whoever may write to it is an administrator.',
  ),
  database: derived(
    text,
    'sqlite:<dataDir>/mutual.db',
    (of) => `sqlite:${of('dataDir')}/mutual.db`,
    'Where entries, nodes and the log of changes are stored: `sqlite:PATH`, `sqlite::memory:`, or for several servers of one trust domain `postgres://USER:PASSWORD@HOST/DATABASE`.',
    { secret: true },
  ),
  databaseReplica: optional(
    text,
    'A standby of a PostgreSQL `database`, from which a server reads all entries and nodes when it starts, see [PostgreSQL](postgresql.md#read-replicas). One that cannot be used is named in the log, and the database is read.',
    { secret: true },
  ),
  migrateAtStart: setting(
    toggle,
    true,
    'Brings the database to the schema of this version at start. Without it `mutual server migrate` does so, once, and a server that finds an older schema does not start.',
  ),
  ...reloadable({
    adminIds: setting(listOf(spiffeId), [], 'SPIFFE IDs that may administer the server over its TCP listener.'),
    defaultX509SvidTtl: setting(lifetime, hour, 'How long an X.509-SVID lives when its entry does not say.'),
    defaultJwtSvidTtl: setting(lifetime, 5 * minute, 'How long a JWT-SVID lives when its entry does not say.'),
    agentTtl: derived(
      lifetime,
      'defaultX509SvidTtl',
      (of) => of('defaultX509SvidTtl') as number,
      'How long the SVID of an agent lives.',
    ),
  }),
  caTtl: setting(lifetime, day, 'How long an X.509 authority and a JWT signing key live.'),
  caKeyType: setting(keyType, 'ec-p256', 'The key type of X.509 authorities.'),
  jwtKeyType: derived(
    classicKeyType,
    'caKeyType',
    (of) => {
      // Undefined when it is wrong, which is told elsewhere.
      const type = of('caKeyType') as KeyType | undefined;
      return type === undefined || isMlDsa(type) ? 'ec-p256' : type;
    },
    'The key type of JWT authorities; `ec-p256` beside a CA of ML-DSA, which no token may be signed with.',
  ),
  caSubject: section('The subject of X.509 authorities. A serial number is added to it.', {
    country: setting(listOf(text), ['US'], 'Country names.'),
    organization: setting(listOf(text), ['SPIFFE'], 'Organization names.'),
    commonName: setting(text, '', 'The common name.'),
  }),
  ...reloadable({
    jwtIssuer: optional(text, 'The `iss` claim of JWT-SVIDs. Without it they have none.'),
  }),
  disableJwtSvids: setting(toggle, false, 'Issues no JWT-SVIDs and publishes no JWT authorities.'),
  witSvids: section(
    'WIT-SVIDs, see [WIT-SVIDs](wit.md). Off until enabled: the standard calls them incubating and may still change.',
    {
      enabled: setting(toggle, false, 'Issues WIT-SVIDs and publishes WIT authorities.'),
      ttl: setting(
        lifetime,
        hour,
        'How long a WIT-SVID lives when its entry does not say how long its X.509-SVID does.',
      ),
      keyType: optional(classicKeyType, 'The key type of WIT authorities; without it `jwtKeyType`.'),
      issuer: optional(text, 'The `iss` claim of WIT-SVIDs; no URL of OpenID Connect. Without it they have none.'),
    },
  ),
  refreshHint: setting(
    duration(second, 30 * day),
    5 * minute,
    'How often those who trust this domain should fetch its bundle.',
  ),
  ...reloadable({
    rateLimits: section(
      'Calls per second and address on the TCP listener, each with a burst of the same number; 0 is no limit.',
      {
        attest: setting(perSecond, 1, 'Node attestations.'),
        csr: setting(
          perSecond,
          500,
          'Certificate requests: X.509-SVIDs of workloads, agents and downstream authorities.',
        ),
        jwt: setting(perSecond, 500, 'JWT-SVIDs.'),
        wit: setting(perSecond, 500, 'WIT-SVIDs.'),
        push: setting(perSecond, 500, 'JWT and WIT authorities published by downstream servers.'),
        post: setting(perSecond, 10, 'Status reports of agents.'),
      },
    ),
  }),
  revocation: section('Taking back SVIDs before they expire, see [revocation](revocation.md).', {
    record: setting(
      toggle,
      true,
      'Whether it is recorded who was issued which X.509-SVID, until that expires: what `mutual svid revoke` by SPIFFE ID and by entry need. Without it X.509-SVIDs of workloads are revoked by serial alone.',
    ),
    listen: optional(
      hostPort(0),
      'Where the revocation lists are served over plain HTTP: `/crl/AUTHORITY-ID.crl` and `/crl.pem`. Off until set.',
    ),
    ...reloadable({
      withdrawn: setting(
        toggle,
        false,
        'Whether the ban or eviction of an agent and the deletion of an entry revoke what was issued for it.',
      ),
    }),
  }),
  ...reloadable({
    pruneNodesExpiredFor: optional(
      duration(second, 3650 * day),
      'Forgets nodes whose SVID expired this long ago. Without it they are kept. Banned nodes are always kept.',
    ),
    nodeAttestors: section('How nodes may prove what they are.', {
      joinToken: section('A token made by `mutual token create`, good for one node.', {
        enabled: setting(toggle, true, 'Whether join tokens are accepted.'),
      }),
      x509pop: optionalSection('A certificate the node has from elsewhere, and its key. Off until configured.', {
        mode: setting(
          choice('external_pki', 'spiffe'),
          'external_pki',
          'Whose certificates: those of `caBundlePaths`, or X.509-SVIDs of this trust domain.',
        ),
        caBundlePaths: setting(listOf(path), [], 'PEM files of the roots that `external_pki` trusts.'),
        spiffePrefix: setting(text, '/spire-exchange', 'The path under which an X.509-SVID must lie in mode `spiffe`.'),
        maxIntermediates: setting(count(0, 16), 4, 'The most intermediate certificates a node may send.'),
        maxRsaKeySize: setting(count(2048, 16384), 8192, 'The largest RSA key of a node, in bits.'),
      }),
    }),
  }),
  keys: section('The signing keys.', {
    store: setting(
      choice('disk', 'memory', 'pkcs11', 'vault', 'aws-kms', 'gcp-kms', 'azure-key-vault'),
      'disk',
      '`disk` keeps them in `<dataDir>/keys.json`, mode 0600; `memory` makes new authorities at each start; the others keep them where they cannot be read, see [keys](keys.md).',
    ),
    shareJwt: setting(
      toggle,
      false,
      'Whether all servers of the database sign JWT-SVIDs, and WIT-SVIDs, with one key, see [keys](keys.md#few-keys). With `store: disk` it lies in the database, sealed by `seal`; else in the key store, which must be one and the same for all.',
    ),
    seal: sealSection,
    ...keyManagerSections,
  }),
  workers: setting(
    count(0, 64),
    0,
    'Threads that verify requests and sign SVIDs beside the first one, see [performance](performance.md#signing-workers). Each takes 7 MB, and up to 25 under load. For keys that are in the memory of the server: `keys.store` of `disk` or `memory`.',
  ),
  upstream: upstreamSection,
  ...sharedSections,
} as const;

type FromTable = OptionsOf<typeof serverTable>;
export interface ServerOptions extends FromTable {}

const isPostgres = (url: string): boolean => /^postgres(ql)?:\/\/[^/?]*\/[^/?]/.test(url);

const rules: readonly Rule<ServerOptions>[] = [
  ...ownSocketRules('adminSocket'),
  ...keysRules,
  ...mlDsaRules('caKeyType'),
  ...upstreamRules,
  {
    needs: ['caTtl', 'defaultX509SvidTtl', 'defaultJwtSvidTtl', 'agentTtl'],
    check(options, report) {
      const longest = Math.floor(options.caTtl / 6);
      for (const key of ['defaultX509SvidTtl', 'defaultJwtSvidTtl', 'agentTtl'] as const) {
        if (options[key] <= longest) continue;
        report.warn(
          key,
          `${printDuration(options[key])} is longer than a sixth of caTtl (${printDuration(options.caTtl)}): ` +
            `SVIDs will be cut short near the end of an authority; use at most ${printDuration(longest)} or a longer caTtl`,
        );
      }
    },
  },
  {
    needs: ['keys.store', 'keys.shareJwt', 'keys.seal.by'],
    check({ keys }, report) {
      if (!keys.shareJwt) return;
      if (keys.store === 'memory')
        report.fault('keys.shareJwt', 'needs a key store that outlives this process; keys.store is memory');
      if (keys.store === 'disk' && keys.seal === undefined)
        report.fault(
          'keys.shareJwt',
          'puts the key into the database, where it must be sealed: give keys.seal, the same on all servers',
        );
    },
  },
  {
    needs: ['workers', 'keys.store'],
    check({ workers, keys }, report) {
      if (workers === 0 || keys.store === 'disk' || keys.store === 'memory') return;
      report.fault(
        'workers',
        `${workers} threads could not sign: keys of store ${keys.store} do not leave it, and it signs as fast without them; use 0`,
      );
    },
  },
  {
    needs: ['database'],
    check({ database }, report) {
      // The value is never quoted: it may hold a password.
      const [, scheme, rest] = /^([a-z]+):(.*)$/s.exec(database) ?? [];
      if (scheme === 'sqlite' && rest !== '') return;
      if ((scheme === 'postgres' || scheme === 'postgresql') && rest?.startsWith('//')) {
        if (/^\/\/[^/?]*(\/[^/?]+)/.test(rest)) return;
        report.fault('database', `names no database: write ${scheme}://USER:PASSWORD@HOST:PORT/DATABASE`);
        return;
      }
      report.fault(
        'database',
        'is not a database this version knows; give sqlite:PATH, sqlite::memory: or postgres://USER:PASSWORD@HOST/DATABASE',
      );
    },
  },
  {
    needs: ['database', 'databaseReplica'],
    check({ database, databaseReplica }, report) {
      // Neither value is quoted, as above.
      if (databaseReplica === undefined) return;
      if (!isPostgres(databaseReplica))
        report.fault('databaseReplica', 'is no standby: give postgres://USER:PASSWORD@HOST/DATABASE');
      else if (!isPostgres(database))
        report.fault('databaseReplica', 'is for a database of PostgreSQL; SQLite has no replicas, so leave it out');
    },
  },
  {
    needs: ['nodeAttestors.x509pop.mode', 'nodeAttestors.x509pop.caBundlePaths', 'nodeAttestors.x509pop.spiffePrefix'],
    check({ nodeAttestors: { x509pop } }, report) {
      if (x509pop === undefined) return;
      const at = 'nodeAttestors.x509pop';
      if (x509pop.mode === 'external_pki' && x509pop.caBundlePaths.length === 0) {
        report.fault(`${at}.caBundlePaths`, 'is empty; mode external_pki needs at least one PEM file of roots');
      }
      if (x509pop.mode === 'spiffe' && x509pop.caBundlePaths.length > 0) {
        report.fault(
          `${at}.caBundlePaths`,
          'is not used in mode spiffe, which trusts the own trust domain; leave it out',
        );
      }
      if (!x509pop.spiffePrefix.startsWith('/')) {
        report.fault(`${at}.spiffePrefix`, `${JSON.stringify(x509pop.spiffePrefix)} does not begin with "/"`);
      }
    },
  },
  {
    needs: ['witSvids.issuer'],
    check({ witSvids: { issuer } }, report) {
      // Or somebody takes one for an ID token, and asks for no proof (WIT-17).
      if (issuer === undefined || !/^https?:/i.test(issuer)) return;
      report.fault(
        'witSvids.issuer',
        `${quote(issuer)} could be an issuer of OpenID Connect, which a WIT-SVID must not seem to come from; use another kind of name, or none`,
      );
    },
  },
  {
    needs: ['jwtIssuer', 'disableJwtSvids'],
    check(options, report) {
      if (options.disableJwtSvids && options.jwtIssuer !== undefined) {
        report.warn('jwtIssuer', 'has no use, since disableJwtSvids is true');
      }
    },
  },
];

export const serverProgram: Program<typeof serverTable, ServerOptions> = { name: 'server', table: serverTable, rules };

/** Reads the server's options. Throws `config/invalid` with every fault. */
export function readServerOptions(
  sources: Sources,
): Promise<Reading<ServerOptions> & { readonly options: ServerOptions }> {
  return readOptions(serverProgram, sources);
}
