/** Where SVIDs can be stored: one row a store. */
import type { LoadPackage } from '../../src/keys/load-package.ts';
import type { Random } from '../../src/run/random.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import type { AgentOptions } from '../config.ts';
import { awsSecretsManager } from './aws-secrets.ts';
import { filesStore } from './files.ts';
import { gcpSecretManager } from './gcp-secrets.ts';
import type { Stores } from './plan.ts';
import type { SvidStore } from './svid-store.ts';

interface Ports {
  readonly trustDomain: TrustDomain;
  readonly random: Random;
  readonly load: LoadPackage;
}

interface Row {
  /** The settings that its entries may have. */
  readonly settings: readonly string[];
  /** Opens it, or undefined where the options do not ask for it. */
  open(options: AgentOptions['svidStores'], ports: Ports): Promise<SvidStore> | SvidStore | undefined;
}

const table: readonly Row[] = [
  { settings: ['name', 'uid', 'gid'], open: ({ files }, { random }) => files && filesStore(files, random) },
  {
    settings: ['secretname', 'arn', 'kmskeyid'],
    open: ({ awsSecretsManager: aws }, { load }) => aws && awsSecretsManager(aws, load),
  },
  {
    settings: ['name', 'projectid', 'role', 'serviceaccount', 'regions'],
    open: ({ gcpSecretManager: gcp }, { trustDomain, load }) => gcp && gcpSecretManager(gcp, trustDomain, load),
  },
];

/** Opens the stores that the options ask for. Throws `config/invalid`. */
export async function openStores(options: Pick<AgentOptions, 'svidStores'>, ports: Ports): Promise<Stores> {
  const stores = new Map<string, { store: SvidStore; settings: readonly string[] }>();
  for (const { settings, open } of table) {
    const store = await open(options.svidStores, ports);
    if (store !== undefined) stores.set(store.name, { store, settings });
  }
  return stores;
}
