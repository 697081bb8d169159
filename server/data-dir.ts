/** The server's data directory: whose it is, and the name by which this server knows its own authorities again. */
import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault, quote } from '../src/errors.ts';
import { readFileIfThere, writeFileAtomic } from '../src/run/file.ts';
import type { Random } from '../src/run/random.ts';
import type { TrustDomain } from '../src/spiffe/id.ts';

interface Owner {
  readonly trustDomain: string;
  readonly serverName: string;
}

/**
 * Makes the directory, readable for its owner only, or takes an existing one of the same trust domain.
 * Gives the server's name. Throws `data/foreign`, `data/corrupt`, or `state/refused` when it cannot be written.
 */
export async function openDataDir(dir: string, trustDomain: TrustDomain, random: Random): Promise<string> {
  try {
    if ((await mkdir(dir, { recursive: true, mode: 0o700 })) !== undefined) await chmod(dir, 0o700);
    const path = join(dir, 'server.json');
    const found = await readFileIfThere(path);
    if (!found) {
      const serverName = random.bytes(8).toString('hex');
      await writeFileAtomic(path, `${JSON.stringify({ trustDomain, serverName })}\n`, 0o600);
      return serverName;
    }
    const owner = readOwner(found.data.toString('utf8'), path);
    if (owner.trustDomain === trustDomain) return owner.serverName;
    throw new Fault(
      'data/foreign',
      `data directory ${quote(dir)} belongs to trust domain ${quote(owner.trustDomain)}, not ${quote(trustDomain)}`,
      {
        hint: 'Give this trust domain a data directory of its own.',
      },
    );
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault('state/refused', `data directory ${quote(dir)} cannot be used: ${(error as Error).message}`, {
      hint: 'Give the server a directory that it may write to.',
      cause: error,
    });
  }
}

function readOwner(text: string, path: string): Owner {
  try {
    const owner = JSON.parse(text) as Owner;
    if (typeof owner.trustDomain === 'string' && typeof owner.serverName === 'string') return owner;
  } catch {}
  throw new Fault('data/corrupt', `${quote(path)} is not what this program wrote`, {
    hint: 'Restore the data directory from a backup, or give an empty one.',
  });
}
