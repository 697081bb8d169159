/** The options of key stores, declared once for both programs, and for whatever else logs in to Vault. */
import { optional, optionalSection, type Rule, required, setting } from '../config.ts';
import { Fault, quote } from '../errors.ts';
import { choice, type Kind, listOf, path, text, toggle } from './kinds.ts';

/** An address without a user name, a query or a fragment: https, or http of this machine alone. */
export const serviceUrl: Kind<string> = {
  ...text,
  name: 'URL',
  placeholder: 'URL',
  read(given) {
    const plain = text.read(given);
    const url = URL.canParse(plain) ? new URL(plain) : undefined;
    const isHere = url !== undefined && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
    if (url === undefined || !(url.protocol === 'https:' || (url.protocol === 'http:' && isHere)))
      throw new Fault('config/invalid', `${quote(plain)} is not an https URL (http is taken for this machine alone)`);
    if (url.username !== '' || url.password !== '' || url.hash !== '' || url.search !== '')
      throw new Fault('config/invalid', `${quote(plain)} has a user name, a password, a query or a fragment`);
    return plain;
  },
};

const gcpKeyRing: Kind<string> = {
  ...text,
  name: 'key ring',
  placeholder: 'NAME',
  read(given) {
    const plain = text.read(given);
    if (/^projects\/[^/?#]+\/locations\/[^/?#]+\/keyRings\/[^/?#]+$/.test(plain)) return plain;
    throw new Fault('config/invalid', `${quote(plain)} is not a key ring, such as projects/P/locations/L/keyRings/R`);
  },
};

/** Where an engine of Vault is mounted. */
export const mountPath: Kind<string> = {
  ...text,
  read(given) {
    const plain = text.read(given);
    if (/^[A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+)*$/.test(plain) && !plain.split('/').includes('..')) return plain;
    throw new Fault('config/invalid', `${quote(plain)} is not a path in Vault, such as transit or team/transit`);
  },
};

const tag: Kind<string> = {
  ...text,
  placeholder: 'NAME=VALUE',
  read(given) {
    const plain = text.read(given);
    if (/^[^=]+=/.test(plain)) return plain;
    throw new Fault('config/invalid', `${quote(plain)} is not NAME=VALUE`);
  },
};

const secret = { secret: true, variableOnly: true } as const;

/** How to reach Vault or OpenBao and who to be there. */
export const vaultLogin = {
  address: required(serviceUrl, 'Where Vault or OpenBao answers, such as `https://vault.example.org:8200`.'),
  namespace: optional(text, 'The namespace to work in.'),
  caFile: optional(path, 'A PEM file with the roots of its certificate, when the machine does not know them.'),
  login: setting(choice('token', 'approle', 'certificate', 'kubernetes'), 'token', 'How to log in.'),
  loginPath: optional(mountPath, 'Where the login method is mounted, when not at its usual place.'),
  token: optional(text, 'The token to log in with.', secret),
  tokenFile: optional(path, 'A file with the token, read anew when it is refused.'),
  roleId: optional(text, 'The role ID of the AppRole.'),
  secretId: optional(text, 'The secret ID of the AppRole.', secret),
  secretIdFile: optional(path, 'A file with the secret ID of the AppRole.'),
  role: optional(text, 'The role for the certificate and Kubernetes logins.'),
  certificateFile: optional(path, 'The PEM file of the certificate to log in with.'),
  keyFile: optional(path, 'The PEM file of its key.'),
  serviceAccountTokenFile: optional(
    path,
    "A file with the service account's token for the Kubernetes login, when not at the usual place.",
  ),
} as const;

export const keyManagerSections = {
  pkcs11: optionalSection('A PKCS#11 token. Needs the package `pkcs11js`, which is installed where it can be built.', {
    library: required(path, "The token maker's library, such as `/usr/lib/softhsm/libsofthsm2.so`."),
    token: required(text, 'The label of the token.'),
    pin: optional(text, 'The PIN of its user.', secret),
    pinFile: optional(path, 'A file with the PIN of its user.'),
  }),
  vault: optionalSection('Keys in the Transit engine of Vault or OpenBao.', {
    ...vaultLogin,
    transitPath: setting(mountPath, 'transit', 'Where the Transit engine is mounted.'),
  }),
  awsKms: optionalSection(
    'Keys in AWS KMS. Needs the package `@aws-sdk/client-kms`; credentials come from where the AWS SDK looks for them.',
    {
      region: required(text, 'The region.'),
      endpoint: optional(serviceUrl, "Another address than the region's."),
      keyPolicyFile: optional(path, 'A JSON file with the policy of new keys.'),
      tags: setting(listOf(tag), [], 'Tags for new keys.'),
    },
  ),
  gcpKms: optionalSection('Keys in Google Cloud KMS. Needs the package `google-auth-library`.', {
    keyRing: required(gcpKeyRing, 'The key ring, such as `projects/P/locations/L/keyRings/R`.'),
    credentialsFile: optional(
      path,
      'The JSON of a service account or of a workload identity federation; without it the credentials of the machine count.',
    ),
    endpoint: optional(serviceUrl, "Another address than Google's."),
    protection: setting(choice('software', 'hsm'), 'software', 'Where new keys are made.'),
  }),
  azureKeyVault: optionalSection(
    'Keys in Azure Key Vault. Needs the packages `@azure/keyvault-keys` and `@azure/identity`.',
    {
      vaultUrl: required(serviceUrl, 'The vault, such as `https://NAME.vault.azure.net`.'),
      tenantId: optional(text, 'The tenant, when the credentials of the machine do not say.'),
      clientId: optional(text, 'The application or the managed identity to be.'),
      clientSecret: optional(
        text,
        'The secret of the application. Without one the credentials of the machine count.',
        secret,
      ),
      clientSecretFile: optional(path, 'A file with the secret of the application.'),
      hsm: setting(toggle, false, 'Makes new keys in a hardware module; needs a premium vault.'),
    },
  ),
} as const;

export const sealSection = optionalSection(
  'Encrypts the files that hold keys. A file that is not sealed yet is sealed when it is next written.',
  {
    by: setting(
      choice('passphrase', 'vault', 'aws-kms', 'gcp-kms', 'azure-key-vault'),
      'passphrase',
      'What opens it: a passphrase, or a key of another key manager, which is configured below `keys` too.',
    ),
    passphrase: optional(text, 'The passphrase.', secret),
    passphraseFile: optional(path, 'A file with the passphrase.'),
    nextPassphraseFile: optional(
      path,
      'A file with the passphrase that this one is being changed to: it opens too, and `reseal` seals with it, see [keys](keys.md#another-passphrase).',
    ),
    wrappingKey: optional(text, 'The name of the key at the other key manager. It must be there, and able to encrypt.'),
  },
);

interface WithKeys {
  readonly keys: {
    readonly store: string;
    readonly seal?: {
      readonly by: string;
      readonly passphrase?: string;
      readonly passphraseFile?: string;
      readonly nextPassphraseFile?: string;
      readonly wrappingKey?: string;
    };
  };
}

const sections: Readonly<Record<string, string>> = {
  pkcs11: 'pkcs11',
  vault: 'vault',
  'aws-kms': 'awsKms',
  'gcp-kms': 'gcpKms',
  'azure-key-vault': 'azureKeyVault',
};

/** What must be given together. */
export const keysRules: readonly Rule<WithKeys>[] = [
  {
    needs: ['keys.store'],
    check({ keys }, report) {
      const section = sections[keys.store];
      if (section !== undefined && !(section in keys))
        report.fault('keys.store', `is ${keys.store}, and nothing below keys.${section} says where that is`);
    },
  },
  {
    needs: ['keys.seal.by', 'keys.seal.nextPassphraseFile'],
    check({ keys: { seal } }, report) {
      if (seal?.nextPassphraseFile !== undefined && seal.by !== 'passphrase')
        report.fault('keys.seal.nextPassphraseFile', `is of no use, since keys.seal.by is ${seal.by}`);
    },
  },
  {
    needs: ['keys.store', 'keys.seal.by', 'keys.seal.wrappingKey', 'keys.seal.passphraseFile', 'keys.seal.passphrase'],
    check({ keys }, report) {
      const { seal } = keys;
      if (seal === undefined) return;
      if (keys.store !== 'disk') {
        report.fault(
          'keys.seal.by',
          `there is no file to seal, since keys.store is ${keys.store}; leave keys.seal out`,
        );
      } else if (seal.by === 'passphrase') {
        if ((seal.passphrase === undefined) === (seal.passphraseFile === undefined)) {
          const what = seal.passphrase === undefined ? 'is needed' : 'is given twice';
          report.fault(
            'keys.seal.passphraseFile',
            `the passphrase ${what}; give a file, or MUTUAL_KEYS_SEAL_PASSPHRASE`,
          );
        }
      } else {
        if (seal.wrappingKey === undefined)
          report.fault('keys.seal.wrappingKey', `is needed, since keys.seal.by is ${seal.by}`);
        const section = sections[seal.by];
        if (section !== undefined && !(section in keys))
          report.fault('keys.seal.by', `is ${seal.by}, and nothing below keys.${section} says where that is`);
      }
    },
  },
];
