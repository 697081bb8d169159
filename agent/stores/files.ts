/**
 * Store `files`: a directory on this node with a folder for each entry, `files:name:NAME`. A folder is replaced whole: the
 * files are written and flushed in a new one, which a link of the entry's name then points at, so that a reader who opens
 * the folder finds a chain and a key that belong together. Root may give a folder to another user (`files:uid:N`) and let
 * a group read it (`files:gid:N`).
 */
import { constants } from 'node:fs';
import { chmod, chown, lstat, mkdir, open, readdir, readlink, rename, rm, symlink } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { Fault, quote } from '../../src/errors.ts';
import { writeFileAtomic } from '../../src/run/file.ts';
import type { Random } from '../../src/run/random.ts';
import { bundlePem, certificatesPem, crlsPem, keyPem } from './secret.ts';
import { wrong } from './settings.ts';
import type { Place, Secret, SvidStore } from './svid-store.ts';

export interface FilesOptions {
  readonly directory: string;
}

interface Folder extends Place {
  readonly name: string;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

const largestId = 2 ** 32 - 2;
/** chown(2) leaves such an id as it is. */
const unchanged = -1;

export function filesStore({ directory }: FilesOptions, random: Random): SvidStore<Folder> {
  /** The folder that the link of an entry points at; undefined when there is none. */
  const current = async (name: string): Promise<string | undefined> => {
    const link = join(directory, name);
    const found = await lstat(link).catch(absent);
    if (found === undefined) return undefined;
    const target = found.isSymbolicLink() ? await readlink(link) : '';
    if (isVersionOf(target, name)) return target;
    throw new Fault('store/foreign', `${quote(link)} is there already, and this program did not make it`, {
      hint: 'Remove it, or give the entry another files:name.',
    });
  };
  const removeVersions = async (name: string, but?: string): Promise<void> => {
    for (const found of await readdir(directory)) {
      if (isVersionOf(found, name) && found !== but) await rm(join(directory, found), { recursive: true, force: true });
    }
  };

  // One after the other: work that somebody no longer waits for may still be under way, and tidies up at its end.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = (signal: AbortSignal, work: () => Promise<void>): Promise<void> => {
    const turn = last.then(() => {
      signal.throwIfAborted();
      return known(directory, work);
    });
    last = turn.catch(() => {});
    return turn;
  };

  return {
    name: 'files',
    takesCrls: true,
    place(settings) {
      const name = settings.required('name');
      // A name is one folder below the directory, and nothing that begins with a point is an entry's.
      if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/.test(name))
        throw wrong(`files:name:${name}`, 'expected letters, digits, ".", "_" and "-", not beginning with "."');
      const number = (setting: string): number | undefined => {
        const given = settings.optional(setting);
        if (given === undefined) return undefined;
        if (!/^\d{1,10}$/.test(given) || Number(given) > largestId)
          throw wrong(`files:${setting}:${given}`, `expected a number from 0 to ${largestId}`);
        return Number(given);
      };
      return { key: name, name, uid: number('uid'), gid: number('gid') };
    },
    put: (folder, secret, signal) =>
      inTurn(signal, async () => {
        await ownDirectory(directory);
        await current(folder.name);
        const version = `.${folder.name}.${random.bytes(6).toString('hex')}`;
        try {
          await writeVersion(join(directory, version), folder, secret);
          const link = join(directory, `${version}.link`);
          await symlink(version, link);
          await rename(link, join(directory, folder.name));
        } catch (error) {
          await rm(join(directory, version), { recursive: true, force: true });
          throw error;
        }
        await flush(directory);
        await removeVersions(folder.name, version);
      }),
    remove: ({ name }, signal) =>
      inTurn(signal, async () => {
        if ((await lstat(directory).catch(absent)) === undefined) return;
        if ((await current(name)) !== undefined) await rm(join(directory, name));
        await removeVersions(name);
        await flush(directory);
      }),
    close: () => {},
  };
}

/** What a folder of the entry is called: hidden, with twelve random digits. */
const isVersionOf = (found: string, name: string): boolean =>
  found.startsWith(`.${name}.`) && /^[0-9a-f]{12}(\.link)?$/.test(found.slice(name.length + 2));

async function writeVersion(path: string, { uid, gid }: Folder, secret: Secret): Promise<void> {
  // Nobody else comes in before all is as it should be.
  await mkdir(path, { mode: 0o700 });
  const shared = gid !== undefined;
  const files: [string, string][] = [
    ['svid.pem', certificatesPem(secret.chain)],
    ['key.pem', keyPem(secret.pkcs8)],
    ['bundle.pem', bundlePem(secret.bundle)],
    ...(secret.crls?.length ? [['crl.pem', crlsPem(secret.crls)] as [string, string]] : []),
    ...secret.federated.map((bundle): [string, string] => [`bundle.${bundle.trustDomain}.pem`, bundlePem(bundle)]),
  ];
  for (const [name, text] of files) {
    const file = join(path, name);
    await writeFileAtomic(file, text, shared ? 0o640 : 0o600);
    await chown(file, uid ?? unchanged, gid ?? unchanged);
  }
  await chmod(path, shared ? 0o750 : 0o700);
  await chown(path, uid ?? unchanged, gid ?? unchanged);
}

/** Makes the directory, which others may pass through, or refuses one into which others may write, such as another owner. */
async function ownDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const { mode, uid } = await lstat(directory);
  if ((mode & 0o022) === 0 && (uid === userInfo().uid || uid === 0)) return;
  throw new Fault('store/unavailable', `others may write into ${quote(directory)}, where SVIDs are to be stored`, {
    hint: 'Let the directory belong to the user of the agent, and run chmod go-w on it.',
  });
}

async function flush(directory: string): Promise<void> {
  const folder = await open(directory, constants.O_RDONLY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

/** A system's refusal as a Fault: full, read-only, not allowed. */
async function known<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault('store/unavailable', `the SVID cannot be written below ${quote(directory)}`, {
      hint: 'See that the agent may write there, that the disk is not full, and that it may give files away.',
      detail: (error as Error).message,
      cause: error,
    });
  }
}
