/** All that signs in this server: X.509, JWT and WIT authorities, the own bundle, the server's own SVID, kept fresh. */
import type { KeyObject } from 'node:crypto';
import { generateKeyAside } from '../src/crypto/algorithms.ts';
import { parseCertificate } from '../src/crypto/certificate.ts';
import { Fault } from '../src/errors.ts';
import type { KeyStore } from '../src/keys/key-store.ts';
import type { Log } from '../src/log.ts';
import type { Clock } from '../src/run/clock.ts';
import { type Live, live } from '../src/run/live.ts';
import type { Random } from '../src/run/random.ts';
import type { Bundle, JwtAuthority } from '../src/spiffe/bundle.ts';
import { type SpiffeId, serverId } from '../src/spiffe/id.ts';
import { bundlePruneAt, serverRenewAt } from '../src/spiffe/lifetime.ts';
import { type Authority, type AuthorityPorts, isUpstreamFault, startAuthority } from './authority/authority.ts';
import { bridgeFrom } from './authority/bridge.ts';
import { distrustedRoots } from './authority/distrust.ts';
import { announced, followUpstream, publishUpward } from './authority/follow-upstream.ts';
import { type JwtSigner, jwtKind } from './authority/jwt.ts';
import { lastSeen } from './authority/last-seen.ts';
import { type OwnBundle, ownBundle } from './authority/own-bundle.ts';
import { ownKeysAbove } from './authority/own-keys-above.ts';
import { retireSlots } from './authority/slots-document.ts';
import type { SharedKeys } from './authority/token-keys.ts';
import { type UpstreamRoots, upstreamRoots } from './authority/upstream-roots.ts';
import { type WitSigner, witKind } from './authority/wit.ts';
import { upstreamX509Kind, type X509Signer, x509Kind } from './authority/x509.ts';
import type { ServerOptions } from './config.ts';
import { issueX509Svid } from './issue/x509.ts';
import type { Store } from './store/store.ts';
import type { SteadyUpstream } from './upstream/steady.ts';
import type { KeyKind } from './upstream/upstream.ts';

/** What the TLS listener presents. */
export interface ServerSvid {
  readonly id: SpiffeId;
  readonly chain: readonly Buffer[];
  readonly key: KeyObject;
  /** Milliseconds. */
  readonly notAfter: number;
}

export interface Authorities {
  readonly x509: Authority<X509Signer>;
  /** Undefined when the server issues no JWT-SVIDs. */
  readonly jwt: Authority<JwtSigner> | undefined;
  /** Undefined when the server issues no WIT-SVIDs. */
  readonly wit: Authority<WitSigner> | undefined;
  readonly bundle: OwnBundle;
  readonly serverSvid: Live<ServerSvid>;
  readonly roots: UpstreamRoots;
  /** Whether an upstream authority signs the X.509 authorities. */
  readonly isBelow: boolean;
  /** Publishes a key of a server below to all above this one; undefined where there is none that takes keys. */
  readonly publishUpward: ((kind: KeyKind, key: JwtAuthority) => Promise<void>) | undefined;
  /** Throws `state/refused` when the clock is behind the authority that signs: nobody will believe what it signs now. */
  checkClock(): void;
  /** Does what time demands of all of them; called every few seconds. */
  keepFresh(): Promise<void>;
  /** Throws `keys/lost` while one of them cannot sign. */
  check(): void;
}

export interface AuthoritiesPorts {
  readonly store: Store;
  readonly keys: KeyStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Tells this server's journal from those of others on the same database. */
  readonly serverName: string;
  /** The keys of the JWT and WIT authorities where all servers share them, see `openSharedTokenKeys`. */
  readonly sharedTokenKeys?: SharedKeys | undefined;
  /** See `AuthorityPorts.beforePublished`. */
  readonly beforeX509Published?: AuthorityPorts['beforePublished'];
  /** What signs the X.509 authorities, when they are no roots. */
  readonly upstream?: SteadyUpstream | undefined;
}

/** Milliseconds. */
const pruneEvery = 6 * 3600 * 1000;

export async function startAuthorities(options: ServerOptions, ports: AuthoritiesPorts): Promise<Authorities> {
  const { store, clock, random, log, upstream } = ports;
  const { trustDomain } = options;
  const bundle = ownBundle(store.bundles, trustDomain, Math.floor(options.refreshHint / 1000));
  const shared = { ...ports, journal: store.journal, bundle };
  const { caSubject, caTtl } = options;
  const distrusted = distrustedRoots({ journal: store.journal, clock }, bundle);
  await distrusted.read();
  const kindOfX509 = upstream
    ? upstreamX509Kind(trustDomain, caSubject, caTtl, random, distrusted, upstream)
    : x509Kind(trustDomain, caSubject, caTtl, random, distrusted);
  const x509 = await startAuthority(kindOfX509, {
    ...shared,
    keyType: options.caKeyType,
    ...(ports.beforeX509Published && { beforePublished: ports.beforeX509Published }),
  });
  const ownJwt = jwtKind(caTtl, random);
  const roots = upstreamRoots({
    ...{ journal: store.journal, bundle, distrusted, x509, log },
    areFollowed: upstream?.publishes ?? false,
  });
  const seen = upstream && lastSeen(store.journal, ports.serverName, `${upstream.name} ${upstream.at}`);
  const kindOfJwt = upstream?.publishes ? announced('jwt', ownJwt, upstream, bundle, clock) : ownJwt;
  const ofAllServers = ports.sharedTokenKeys && {
    keys: ports.sharedTokenKeys.keys,
    shared: ports.sharedTokenKeys.place,
  };
  const jwt = options.disableJwtSvids
    ? undefined
    : await startAuthority(kindOfJwt, { ...shared, ...ofAllServers, keyType: options.jwtKeyType });
  const { witSvids } = options;
  const ownWit = witKind(caTtl, random);
  const kindOfWit = upstream?.publishes ? announced('wit', ownWit, upstream, bundle, clock) : ownWit;
  const wit = witSvids.enabled
    ? await startAuthority(kindOfWit, {
        ...shared,
        ...ofAllServers,
        keyType: witSvids.keyType ?? options.jwtKeyType,
      })
    : undefined;
  if (ports.sharedTokenKeys) {
    // What this server signed with before they were shared.
    for (const kind of ['jwt', 'wit'])
      for (const key of await retireSlots(store.journal, `${kind}@${ports.serverName}`)) await ports.keys.remove(key);
  }
  const refreshHint = Math.floor(options.refreshHint / 1000);
  await bundle.edit((before) => (before.refreshHint === refreshHint ? undefined : { ...before, refreshHint }));

  let renewal = 0;
  let begins = 0;
  let signedBy = '';
  /** The old authority by which the server's chain may be verified too. */
  let bridgedBy: string | undefined;
  async function bridge(): Promise<readonly Buffer[]> {
    const { active, old } = x509.state();
    const key = old && (await ports.keys.get(old.keyId));
    if (!active || !old || !key) return [];
    return bridgeFrom(old, key, { slot: active, signer: x509.signer.value }, clock.now(), random);
  }
  async function makeServerSvid(): Promise<ServerSvid> {
    const { privateKey, publicKey } = await generateKeyAside('ec-p256');
    const signer = x509.signer.value;
    const id = serverId(trustDomain);
    const profile = {
      id,
      spki: publicKey.export({ format: 'der', type: 'spki' }),
      ttl: options.defaultX509SvidTtl,
      dnsNames: [],
    };
    const svid = await issueX509Svid(signer, profile, clock.now(), random);
    const way = await bridge();
    renewal = serverRenewAt(svid);
    begins = svid.notBefore;
    signedBy = signer.authorityId;
    bridgedBy = way.length > 0 ? x509.state().old?.id : undefined;
    return { id, chain: [...svid.chain, ...way], key: privateKey, notAfter: svid.notAfter };
  }
  const serverSvid = live(await makeServerSvid());

  async function pruneBundle(): Promise<void> {
    const now = clock.now();
    await bundle.edit((before) => {
      const x509Authorities = before.x509Authorities.filter(
        ({ certificate }) => bundlePruneAt(parseCertificate(certificate).notAfter) > now,
      );
      const isOfUse = ({ expiresAt }: JwtAuthority): boolean =>
        expiresAt === 0 || bundlePruneAt(expiresAt * 1000) > now;
      const after = {
        ...before,
        x509Authorities,
        jwtAuthorities: before.jwtAuthorities.filter(isOfUse),
        witAuthorities: before.witAuthorities.filter(isOfUse),
      };
      const dropped = authorityCount(before) - authorityCount(after);
      if (dropped === 0) return undefined;
      log.info({ dropped }, 'expired authorities removed from the bundle');
      return after;
    });
  }

  /** Whether the authority behind the server's SVID is the active one, or an old one that nothing speaks against. */
  function signerIsGood(): boolean {
    const { active, old } = x509.state();
    // A bridge from what is revoked leads nobody to this server who should come.
    if (bridgedBy !== undefined && old?.id !== bridgedBy) return false;
    return active?.id === signedBy || (old?.id === signedBy && !old.tainted);
  }

  async function refreshServerSvid(): Promise<void> {
    // One that begins later than now was made while the clock was ahead: no agent will believe it.
    const now = clock.now();
    if (now < renewal && now >= begins && signerIsGood()) return;
    serverSvid.set(await makeServerSvid());
    log.info({ expiresAt: new Date(serverSvid.value.notAfter).toISOString() }, 'server SVID rotated');
  }

  const ownKeys = ownKeysAbove({ jwt, wit }, log);
  const signsWith = (): readonly string[] =>
    [jwt, wit].flatMap((one) => [one?.state().active?.id ?? [], one?.state().prepared?.id ?? []].flat());

  async function follow(): Promise<void> {
    if (upstream && seen)
      await followUpstream(upstream, x509, bundle, {
        ...{ distrusted, roots, lastSeen: seen, ownKeys, signsWith, clock, log },
      });
  }

  async function pruneNowAndThen(): Promise<void> {
    if (clock.now() < nextPrune) return;
    await pruneBundle();
    nextPrune = clock.now() + pruneEvery;
  }

  let nextPrune = clock.now();
  return {
    x509,
    jwt,
    wit,
    bundle,
    serverSvid,
    roots,
    isBelow: upstream !== undefined,
    checkClock() {
      const { notBefore } = x509.signer.value.certificate;
      const now = clock.now();
      if (now >= notBefore) return;
      const [from, here] = [notBefore, now].map((ms) => new Date(ms).toISOString());
      throw new Fault('state/refused', `the X.509 authority is not valid before ${from}; the time here is ${here}`, {
        hint: 'Set the clock. Where it was wrong when the authority was made, prepare and activate another.',
      });
    },
    publishUpward: upstream?.publishes ? (kind, key) => publishUpward(kind, key, upstream, bundle, clock) : undefined,
    check() {
      for (const authority of [x509, jwt, wit]) authority?.check();
    },
    async keepFresh() {
      const failures: unknown[] = [];
      // One that cannot be done must not keep the others from being done.
      for (const step of [x509.keepFresh, jwt?.keepFresh, wit?.keepFresh, follow, refreshServerSvid, pruneNowAndThen]) {
        await step?.().catch((error: unknown) => {
          // Told in the log when it began, and by the health check.
          if (!isUpstreamFault(error)) failures.push(error);
        });
      }
      if (failures.length > 0) throw failures[0];
    },
  };
}

const authorityCount = ({ x509Authorities, jwtAuthorities, witAuthorities }: Bundle): number =>
  x509Authorities.length + jwtAuthorities.length + witAuthorities.length;
