/** From the options of a program to its key store. */
import { join } from 'node:path';
import { Fault } from '../errors.ts';
import { diskKeys } from './disk.ts';
import type { KeyStore } from './key-store.ts';
import { type LoadPackage, loadPackage } from './load-package.ts';
import { memoryKeys } from './memory.ts';
import type { KeysOptions, SealOptions } from './options.ts';
import type { RemotePorts } from './remote-keys.ts';
import { type KeyWrapper, passphraseWrapper, type Sealer, sealer } from './seal.ts';
import { readSecret, readSecretFile } from './secret-file.ts';

export interface KeyOwner {
  readonly trustDomain: string;
  /** Tells the keys of this server from those of others in the same store. */
  readonly server: string;
  readonly dataDir: string;
}

export type KeyPorts = RemotePorts & {
  /** Where optional packages come from; tests put their own in the place. */
  readonly load?: LoadPackage | undefined;
  /** What `openSealer` gave, when it was asked already: a passphrase costs its work once. */
  readonly seal?: Sealer | undefined;
};

/**
 * Opens the key store that the options name, and reaches it once. What is not used is not loaded.
 * Throws `config/invalid`, `keys/unavailable`, `keys/sealed`, and what a key file can be refused for.
 */
export async function openKeys(options: KeysOptions, owner: KeyOwner, ports: KeyPorts): Promise<KeyStore> {
  const loading = { ...ports, load: ports.load ?? loadPackage };
  switch (options.store) {
    case 'memory':
      return memoryKeys();
    case 'disk':
      return diskKeys(join(owner.dataDir, 'keys.json'), ports.seal ?? (await openSealer(options, ports)));
    case 'pkcs11':
      return (await import('./pkcs11.ts')).pkcs11Keys(needed(options, 'pkcs11'), owner, loading);
    case 'vault':
      return (await import('./vault.ts')).vaultKeys(needed(options, 'vault'), owner, ports);
    case 'aws-kms':
      return (await import('./aws-kms.ts')).awsKmsKeys(needed(options, 'awsKms'), owner, loading);
    case 'gcp-kms':
      return (await import('./gcp-kms.ts')).gcpKmsKeys(needed(options, 'gcpKms'), owner, loading);
    case 'azure-key-vault':
      return (await import('./azure-key-vault.ts')).azureKeyVaultKeys(needed(options, 'azureKeyVault'), owner, loading);
  }
}

/** What seals the files of a program, or undefined when nothing does. */
export async function openSealer(options: KeysOptions, ports: KeyPorts): Promise<Sealer | undefined> {
  return options.seal === undefined ? undefined : sealer(await wrapperOf(options, options.seal, ports), ports.random);
}

async function wrapperOf(options: KeysOptions, seal: SealOptions, ports: KeyPorts): Promise<KeyWrapper> {
  const load = ports.load ?? loadPackage;
  switch (seal.by) {
    case 'passphrase': {
      const hint = 'Give keys.seal.passphraseFile or MUTUAL_KEYS_SEAL_PASSPHRASE.';
      const passphrase = await readSecret({ value: seal.passphrase, file: seal.passphraseFile }, 'passphrase', hint);
      const { nextPassphraseFile: file } = seal;
      const next = file === undefined ? undefined : await readSecretFile(file, 'next passphrase');
      return passphraseWrapper(passphrase, ports.random, { next });
    }
    case 'vault':
      return (await import('./vault.ts')).vaultWrapper(needed(options, 'vault'), keyOf(seal), ports);
    case 'aws-kms':
      return (await import('./aws-kms.ts')).awsKmsWrapper(needed(options, 'awsKms'), keyOf(seal), load);
    case 'gcp-kms':
      return (await import('./gcp-kms.ts')).gcpKmsWrapper(needed(options, 'gcpKms'), keyOf(seal), load);
    case 'azure-key-vault':
      return (await import('./azure-key-vault.ts')).azureKeyVaultWrapper(
        needed(options, 'azureKeyVault'),
        keyOf(seal),
        load,
      );
  }
}

function keyOf(seal: SealOptions): string {
  if (seal.wrappingKey !== undefined) return seal.wrappingKey;
  throw new Fault('config/invalid', `keys.seal.by ${seal.by} is given without a key`, {
    hint: 'Give keys.seal.wrappingKey the name of the key that wraps.',
  });
}

function needed<K extends 'pkcs11' | 'vault' | 'awsKms' | 'gcpKms' | 'azureKeyVault'>(
  options: KeysOptions,
  section: K,
): NonNullable<KeysOptions[K]> {
  const found = options[section];
  if (found !== undefined) return found as NonNullable<KeysOptions[K]>;
  throw new Fault('config/invalid', `keys.${section} is not given, and the keys are to be there`, {
    hint: `Give the options below keys.${section}; docs/keys.md shows an example.`,
  });
}
