/**
 * What an agent keeps on disk, so that it comes back with its server away: its own SVID and key, in one file so that
 * there is never one without the other; the entries and bundles last synchronised; and the SVIDs of workloads. Files are
 * 0600 in a 0700 directory, replaced whole. A directory of another trust domain is refused.
 */
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { chmodSync, mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault, quote } from '../src/errors.ts';
import { isSealed, type Sealer } from '../src/keys/seal.ts';
import { readFileIfThere, writeFileAtomic } from '../src/run/file.ts';
import type { Bundle, JwtAuthority } from '../src/spiffe/bundle.ts';
import { parseId, parseTrustDomain, type TrustDomain } from '../src/spiffe/id.ts';
import { parseSelector } from '../src/spiffe/selector.ts';
import type { AuthorizedEntry } from './authorized.ts';
import { type Revocations, revocations } from './revocations.ts';
import { type HeldSvid, readLeaf } from './svid.ts';

/** The agent's own identity. */
export interface NodeRecord extends HeldSvid {
  readonly reattestable: boolean;
}

/** The authorised world as last known, and how far in the server's log that is ('' and 0 when it came by polling). */
export interface World {
  readonly entries: ReadonlyMap<string, AuthorizedEntry>;
  readonly bundles: ReadonlyMap<TrustDomain, Bundle>;
  readonly revoked?: Revocations | undefined;
  readonly position: bigint;
  readonly logId: string;
}

/** A workload's SVID with the revision of the entry that it was issued for. */
export interface WorkloadSvid extends HeldSvid {
  readonly entryId: string;
  readonly revision: number;
  readonly createdAt: number;
}

export interface AgentState {
  /** What was there at the start. */
  readonly node: NodeRecord | undefined;
  readonly bundle: Bundle | undefined;
  readonly world: World | undefined;
  readonly svids: readonly WorkloadSvid[];
  /** Files that could not be read back and were left aside: for the log. */
  readonly dropped: readonly string[];
  /** Writes the agent's own SVID and the bundle of its trust domain; without a node, only the bundle stays. */
  saveNode(node: NodeRecord | undefined, bundle: Bundle): Promise<void>;
  saveWorld(world: World): Promise<void>;
  saveSvids(svids: readonly WorkloadSvid[]): Promise<void>;
  /** Removes what belonged to an evicted node: everything but the bundle. */
  forget(bundle: Bundle): Promise<void>;
}

const version = 1;
/** Those with keys in them, in the state folder. */
export const secretFiles = ['node.json', 'svids.json'] as const;

/**
 * Opens the state in `dataDir`/state, making the directory when needed.
 * @param keepKeys false: no private key is ever written, and a restart attests anew
 * @param seal seals the files that hold keys, each when it is next written; undefined leaves them plain
 * Throws `data/foreign` for another trust domain's or a newer version's directory, and `data/corrupt` when the agent's own
 * record cannot be read; caches that cannot be read are left aside.
 */
export async function openState(
  dataDir: string,
  trustDomain: TrustDomain,
  keepKeys: boolean,
  seal?: Sealer,
): Promise<AgentState> {
  const directory = join(dataDir, 'state');
  makePrivate(directory);
  const paths = {
    node: join(directory, 'node.json'),
    world: join(directory, 'world.json'),
    svids: join(directory, 'svids.json'),
  };
  const dropped: string[] = [];

  const read = async (path: string): Promise<any> => {
    const content = await readFileIfThere(path);
    if (content === undefined) return undefined;
    refuseShared(path, content.mode);
    const data = isSealed(content.data) ? await opened(content.data, path, seal) : content.data;
    let document: any;
    try {
      document = JSON.parse(data.toString('utf8'));
    } catch (error) {
      throw corrupt(path, 'it is not JSON', error);
    }
    if (document?.version > version) {
      throw new Fault(
        'data/foreign',
        `${quote(path)} was written by a newer version of this program (format ${quote(document.version)})`,
      );
    }
    if (typeof document?.trust_domain !== 'string') throw corrupt(path, 'it does not name its trust domain');
    if (document.trust_domain !== trustDomain) {
      throw new Fault(
        'data/foreign',
        `data directory ${quote(dataDir)} belongs to an agent of trust domain ${quote(document.trust_domain)}, not ${quote(trustDomain)}`,
        { hint: 'Use another --data-dir, or remove this one if the other agent is gone.' },
      );
    }
    return document;
  };
  const readCache = async <T>(path: string, take: (document: any) => T): Promise<T | undefined> => {
    try {
      const document = await read(path);
      return document === undefined ? undefined : take(document);
    } catch (error) {
      // A file that is not for this agent, or not for these options, is not to be written over.
      if (error instanceof Fault && error.code !== 'data/corrupt') throw error;
      dropped.push(path);
      return undefined;
    }
  };
  let forgotten = false;
  // One write after the other, so that the last one asked for is the one that stays.
  let writes: Promise<unknown> = Promise.resolve();
  const inTurn = (work: () => Promise<unknown>): Promise<void> => {
    const turn = writes.then(work);
    writes = turn.catch(() => {});
    return turn.then(() => {});
  };
  const write = (path: string, document: object, list?: List): Promise<void> => {
    const pieces = inPieces({ version, trust_domain: trustDomain, ...document }, list);
    const isSecret = path !== paths.world;
    const content = seal && isSecret ? seal.seal(Buffer.from([...pieces].join('')), path) : pieces;
    return inTurn(async () => writeFileAtomic(path, await content, 0o600));
  };

  const own = await read(paths.node);
  let node: NodeRecord | undefined;
  let bundle: Bundle | undefined;
  try {
    bundle = own?.bundle ? bundleFrom(own.bundle) : undefined;
    node = own?.svid ? nodeFrom(own.svid) : undefined;
  } catch (error) {
    throw corrupt(paths.node, (error as Error).message, error);
  }

  return {
    node,
    bundle,
    world: await readCache(paths.world, worldFrom),
    svids: (await readCache(paths.svids, (document) => document.svids.map(workloadFrom) as WorkloadSvid[])) ?? [],
    dropped,
    saveNode(record, trust) {
      forgotten &&= record === undefined;
      return write(paths.node, {
        bundle: bundleTo(trust),
        ...(record !== undefined && keepKeys && { svid: { ...heldTo(record), reattestable: record.reattestable } }),
      });
    },
    async saveWorld(world) {
      const { entries, ...others } = world;
      // As they are now: what changes while they are written comes with the next writing.
      const list = { name: 'entries', items: [...entries.values()], print: (entry: AuthorizedEntry) => entry };
      if (!forgotten) await write(paths.world, worldTo(others), list);
    },
    async saveSvids(svids) {
      if (!keepKeys || forgotten) return;
      await write(paths.svids, {}, { name: 'svids', items: svids, print: workloadTo });
    },
    async forget(trust) {
      // What is written later, at the end of the program, must not bring anything back.
      forgotten = true;
      await write(paths.node, { bundle: bundleTo(trust) });
      await inTurn(() => Promise.all([rm(paths.world, { force: true }), rm(paths.svids, { force: true })]));
    },
  };
}

/** A list at the end of a document, which may be too long to be printed at once. */
interface List<T = any> {
  readonly name: string;
  readonly items: readonly T[];
  print(item: T): object;
}

/** Characters in a piece: a fraction of a millisecond of printing. */
const pieceLength = 64 << 10;

/** A JSON document in pieces. Nobody waits while twenty thousand entries are printed, and no text holds them all. */
function* inPieces(document: object, list: List | undefined): Iterable<string> {
  const start = JSON.stringify(document);
  if (list === undefined) return yield start;
  let piece = `${start.slice(0, -1)},${JSON.stringify(list.name)}:[`;
  for (const [at, item] of list.items.entries()) {
    piece += `${at === 0 ? '' : ','}${JSON.stringify(list.print(item))}`;
    if (piece.length < pieceLength) continue;
    yield piece;
    piece = '';
  }
  yield `${piece}]}`;
}

async function opened(sealed: Buffer, path: string, seal: Sealer | undefined): Promise<Buffer> {
  if (seal !== undefined) return seal.open(sealed, path);
  throw new Fault('keys/sealed', `${quote(path)} is sealed, and nothing was given to open it`, {
    hint: 'Set keys.seal.by, and for a passphrase keys.seal.passphraseFile or MUTUAL_KEYS_SEAL_PASSPHRASE.',
  });
}

/** Makes a directory that only its owner enters. Throws `config/invalid` with the reason of the system. */
export function makePrivate(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    chmodSync(directory, 0o700);
  } catch (error) {
    throw new Fault(
      'config/invalid',
      `directory ${quote(directory)} cannot be made or used: ${(error as Error).message}`,
      {
        hint: 'Give a --data-dir that the agent may write to.',
        cause: error,
      },
    );
  }
}

function refuseShared(path: string, mode: number): void {
  if ((mode & 0o077) !== 0) {
    throw new Fault('data/corrupt', `${quote(path)} has mode 0${mode.toString(8)}: others could have read its keys`, {
      hint: 'Remove it and attest anew; if you trust everyone who could read it, run chmod 600 on it.',
    });
  }
}

const corrupt = (path: string, why: string, cause?: unknown): Fault =>
  new Fault('data/corrupt', `${quote(path)} is not what this program wrote: ${why}`, {
    hint: 'Restore the file, or remove it and attest the node anew.',
    cause,
  });

const base64 = (data: Buffer): string => data.toString('base64');
const bytes = (text: unknown): Buffer => {
  if (typeof text !== 'string') throw new Error('a field with bytes is missing');
  return Buffer.from(text, 'base64');
};
const number = (value: unknown): number => {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw new Error('a field with a number is missing');
  return value;
};

function heldTo(svid: HeldSvid): object {
  return {
    id: svid.id,
    chain: svid.chain.map(base64),
    key: base64(svid.pkcs8),
    not_before: svid.notBefore,
    not_after: svid.notAfter,
    renew_at: svid.renewAt,
  };
}

function heldFrom(document: any): HeldSvid {
  return {
    id: parseId(document.id),
    chain: document.chain.map(bytes),
    pkcs8: bytes(document.key),
    notBefore: number(document.not_before),
    notAfter: number(document.not_after),
    renewAt: number(document.renew_at),
  };
}

function nodeFrom(document: any): NodeRecord {
  const held = heldFrom(document);
  const key = createPublicKey(createPrivateKey({ key: held.pkcs8, format: 'der', type: 'pkcs8' }));
  if (!readLeaf(held.chain).spki.equals(key.export({ type: 'spki', format: 'der' }))) {
    throw new Error('its key and its certificate do not belong together');
  }
  return { ...held, reattestable: document.reattestable === true };
}

const workloadFrom = (document: any): WorkloadSvid => ({
  ...heldFrom(document),
  entryId: String(document.entry_id),
  revision: number(document.revision),
  createdAt: number(document.created_at),
});

const workloadTo = (svid: WorkloadSvid): object => ({
  ...heldTo(svid),
  entry_id: svid.entryId,
  revision: svid.revision,
  created_at: svid.createdAt,
});

function worldTo(world: Omit<World, 'entries'>): object {
  return {
    position: world.position.toString(),
    log_id: world.logId,
    bundles: [...world.bundles.values()].map(bundleTo),
    ...(world.revoked && { crls: world.revoked.ders.map(base64), denied_tokens: world.revoked.denied }),
  };
}

function worldFrom(document: any): World {
  const entries = (document.entries as any[]).map(
    (entry): AuthorizedEntry => ({
      ...entry,
      spiffeId: parseId(entry.spiffeId),
      selectors: entry.selectors.map(parseSelector),
      federatesWith: entry.federatesWith.map(parseTrustDomain),
    }),
  );
  const bundles = (document.bundles as any[]).map(bundleFrom);
  return {
    entries: new Map(entries.map((entry) => [entry.id, entry])),
    bundles: new Map(bundles.map((bundle) => [bundle.trustDomain, bundle])),
    ...(document.crls && { revoked: revocations(document.crls.map(bytes), document.denied_tokens) }),
    position: BigInt(document.position),
    logId: String(document.log_id),
  };
}

function bundleTo(bundle: Bundle): object {
  const keys = (list: readonly JwtAuthority[]): object[] =>
    list.map((key) => ({
      key_id: key.keyId,
      public_key: base64(key.publicKey),
      expires_at: key.expiresAt,
      tainted: key.tainted,
    }));
  return {
    trust_domain: bundle.trustDomain,
    x509: bundle.x509Authorities.map(({ certificate, tainted }) => ({ certificate: base64(certificate), tainted })),
    jwt: keys(bundle.jwtAuthorities),
    wit: keys(bundle.witAuthorities),
    refresh_hint: bundle.refreshHint,
    sequence: bundle.sequence.toString(),
  };
}

function bundleFrom(document: any): Bundle {
  const keys = (list: any[]): JwtAuthority[] =>
    list.map((key) => ({
      keyId: String(key.key_id),
      publicKey: bytes(key.public_key),
      expiresAt: number(key.expires_at),
      tainted: key.tainted === true,
    }));
  return {
    trustDomain: parseTrustDomain(document.trust_domain),
    x509Authorities: document.x509.map((one: any) => ({
      certificate: bytes(one.certificate),
      tainted: one.tainted === true,
    })),
    jwtAuthorities: keys(document.jwt),
    witAuthorities: keys(document.wit),
    refreshHint: number(document.refresh_hint),
    sequence: BigInt(document.sequence),
  };
}
