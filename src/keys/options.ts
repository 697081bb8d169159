/** What the key stores are told; the option tables of the programs (src/config/keys.ts) give exactly this. */

export type KeyStoreName = 'disk' | 'memory' | 'pkcs11' | 'vault' | 'aws-kms' | 'gcp-kms' | 'azure-key-vault';

export interface SealOptions {
  readonly by: 'passphrase' | 'vault' | 'aws-kms' | 'gcp-kms' | 'azure-key-vault';
  readonly passphrase?: string;
  readonly passphraseFile?: string;
  /** What the passphrase is being changed to, see reseal.ts: it opens too. */
  readonly nextPassphraseFile?: string;
  /** The name of the wrapping key where another key manager seals. */
  readonly wrappingKey?: string;
}

export interface Pkcs11Options {
  readonly library: string;
  /** The label of the token. */
  readonly token: string;
  readonly pin?: string;
  readonly pinFile?: string;
}

/** How to reach Vault or OpenBao and who to be there. */
export interface VaultOptions {
  /** `https://vault.example.org:8200` */
  readonly address: string;
  readonly namespace?: string;
  /** PEM file of the roots of its certificate. */
  readonly caFile?: string;
  readonly login: 'token' | 'approle' | 'certificate' | 'kubernetes';
  /** Where the login method is mounted; its usual place when absent. */
  readonly loginPath?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly roleId?: string;
  readonly secretId?: string;
  readonly secretIdFile?: string;
  /** For certificate and Kubernetes logins. */
  readonly role?: string;
  readonly certificateFile?: string;
  readonly keyFile?: string;
  readonly serviceAccountTokenFile?: string;
}

export interface VaultKeysOptions extends VaultOptions {
  /** Where Transit is mounted. */
  readonly transitPath: string;
}

export interface AwsKmsOptions {
  readonly region: string;
  /** Another address than the region's. */
  readonly endpoint?: string;
  /** A file with the policy of new keys, JSON. */
  readonly keyPolicyFile?: string;
  /** `name=value`, put on new keys. */
  readonly tags: readonly string[];
}

export interface GcpKmsOptions {
  /** `projects/P/locations/L/keyRings/R` */
  readonly keyRing: string;
  /** JSON of a service account or of a federated identity; without it the machine's own credentials. */
  readonly credentialsFile?: string;
  readonly endpoint?: string;
  readonly protection: 'software' | 'hsm';
}

export interface AzureKeyVaultOptions {
  /** `https://NAME.vault.azure.net` */
  readonly vaultUrl: string;
  readonly tenantId?: string;
  readonly clientId?: string;
  readonly clientSecret?: string;
  readonly clientSecretFile?: string;
  /** Keys are made in an HSM: needs a premium vault. */
  readonly hsm: boolean;
}

export interface KeysOptions {
  readonly store: KeyStoreName;
  readonly seal?: SealOptions;
  readonly pkcs11?: Pkcs11Options;
  readonly vault?: VaultKeysOptions;
  readonly awsKms?: AwsKmsOptions;
  readonly gcpKms?: GcpKmsOptions;
  readonly azureKeyVault?: AzureKeyVaultOptions;
}
