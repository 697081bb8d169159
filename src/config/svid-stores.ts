/** The options of the stores of SVIDs, each a section that is there when the store is wanted. */
import { optional, optionalSection, required } from '../config.ts';
import { serviceUrl } from './keys.ts';
import { path, text } from './kinds.ts';

export const svidStoreSections = {
  files: optionalSection('A directory on this node, for entries with selectors `files:name:NAME`.', {
    directory: required(path, 'The directory. It is made when it is not there; nobody else may write to it.'),
  }),
  awsSecretsManager: optionalSection(
    'AWS Secrets Manager, for entries with selectors `aws_secretsmanager:...`. Needs the package `@aws-sdk/client-secrets-manager`; credentials come from where the AWS SDK looks for them.',
    {
      region: required(text, 'The region.'),
      endpoint: optional(serviceUrl, "Another address than the region's."),
    },
  ),
  gcpSecretManager: optionalSection(
    'Google Secret Manager, for entries with selectors `gcp_secretmanager:...`. Needs the package `google-auth-library`.',
    {
      credentialsFile: optional(
        path,
        'The JSON of a service account or of a workload identity federation; without it the credentials of the machine count.',
      ),
      endpoint: optional(serviceUrl, "Another address than Google's."),
    },
  ),
} as const;
