/**
 * The change of a passphrase: whatever it seals is sealed anew by the next one, each thing whole or not at all. What is so
 * already is left alone, so that a change that broke off is finished by asking again.
 */
import { Fault, quote } from '../errors.ts';
import { readFileIfThere, writeFileAtomic } from '../run/file.ts';
import type { Random } from '../run/random.ts';
import { openSealer } from './open.ts';
import type { KeysOptions } from './options.ts';
import type { RemotePorts } from './remote-keys.ts';
import { isSealed, passphraseWrapper, type Sealer, sealer } from './seal.ts';
import { readSecretFile } from './secret-file.ts';

/** `absent`: there is no such file. */
export type Resealed = 'resealed' | 'sealed, was plain' | 'already' | 'absent';
export interface ResealedThing {
  /** Its path, or where it is. */
  readonly name: string;
  readonly result: Resealed;
}

export interface Resealing {
  /** Opens what is sealed by either passphrase. */
  readonly from: Sealer;
  readonly to: Sealer;
}

/** Throws `config/invalid` when nothing says to which passphrase, or both are one. */
export async function resealing(options: KeysOptions, ports: RemotePorts & { random: Random }): Promise<Resealing> {
  const { seal } = options;
  const from = await openSealer(options, ports);
  if (from === undefined || seal?.nextPassphraseFile === undefined) {
    throw new Fault(
      'config/invalid',
      'keys.seal.nextPassphraseFile is not given: it holds the passphrase to change to',
      {
        hint: 'Put the new passphrase into a file and give that, beside keys.seal.passphraseFile.',
      },
    );
  }
  const next = await readSecretFile(seal.nextPassphraseFile, 'next passphrase');
  const now =
    seal.passphraseFile === undefined ? seal.passphrase : await readSecretFile(seal.passphraseFile, 'passphrase');
  if (next === now) {
    throw new Fault('config/invalid', 'the next passphrase is the one there is', {
      hint: `Put another one into ${quote(seal.nextPassphraseFile)}.`,
    });
  }
  return { from, to: sealer(passphraseWrapper(next, ports.random), ports.random) };
}

/**
 * The content sealed by the next passphrase; undefined when it is already.
 * Throws `keys/sealed` for what neither passphrase opens, `data/corrupt`.
 */
export async function resealed(content: Buffer, name: string, { from, to }: Resealing): Promise<Buffer | undefined> {
  if (!isSealed(content)) return to.seal(content, name);
  try {
    await to.open(content, name);
    return undefined;
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== 'keys/sealed') throw error;
  }
  return to.seal(await from.open(content, name), name);
}

/** Nobody else may write the file meanwhile. Throws as `resealed`, and what the system refuses. */
export async function resealFile(path: string, by: Resealing): Promise<ResealedThing> {
  const found = await readFileIfThere(path);
  if (found === undefined) return { name: path, result: 'absent' };
  const content = await resealed(found.data, path, by);
  if (content === undefined) return { name: path, result: 'already' };
  await writeFileAtomic(path, content, 0o600);
  return { name: path, result: isSealed(found.data) ? 'resealed' : 'sealed, was plain' };
}
