/** The options of upstream authorities. */

import { mountPath, serviceUrl, vaultLogin } from '../../src/config/keys.ts';
import { choice, hostPort, type Kind, path, socketPath, text } from '../../src/config/kinds.ts';
import { type OptionsOf, optional, optionalSection, type Rule, required, section, setting } from '../../src/config.ts';
import { Fault, quote } from '../../src/errors.ts';

const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount';

/** It becomes a part of an address. */
const kubernetesName: Kind<string> = {
  ...text,
  name: 'name',
  placeholder: 'NAME',
  read(given) {
    const plain = text.read(given);
    if (/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(plain)) return plain;
    throw new Fault(
      'config/invalid',
      `${quote(plain)} is not a name in Kubernetes: small letters, digits, "-" and "."`,
    );
  },
};

/** An ARN, whose form is known and whose end is `what`. */
const arn = (what: string, form: RegExp, such: string): Kind<string> => ({
  ...text,
  name: 'ARN',
  placeholder: 'ARN',
  read(given) {
    const plain = text.read(given);
    if (form.test(plain)) return plain;
    throw new Fault('config/invalid', `${quote(plain)} is not the ARN of a ${what}, such as ${such}`);
  },
});
const authorityArn = arn(
  'certificate authority',
  /^arn:aws[a-z-]*:acm-pca:[a-z0-9-]+:\d{12}:certificate-authority\/[A-Za-z0-9-]+$/,
  'arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/ID',
);
const templateArn = arn(
  'template',
  /^arn:aws[a-z-]*:acm-pca:::template\/[A-Za-z0-9_]+\/V\d+$/,
  'arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen1/V1',
);
const roleArn = arn('role', /^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]+$/, 'arn:aws:iam::ACCOUNT:role/NAME');
const pcaAlgorithms = ['ECDSA', 'RSA'].flatMap((kind) =>
  (['SHA256', 'SHA384', 'SHA512'] as const).map((sum) => `${sum}WITH${kind}`),
);

const names = ['none', 'disk', 'spire', 'csr', 'vault', 'cert-manager', 'aws-pca'] as const;
export type UpstreamName = Exclude<(typeof names)[number], 'none'>;

export const upstreamSection = section(
  'The authority above this server, which signs its X.509 authorities. See [upstream authorities](upstream.md).',
  {
    authority: setting(
      choice(...names),
      'none',
      '`none`: this server signs its own roots. Otherwise which of the sections below it is.',
    ),
    disk: optionalSection('A certificate authority in files, read again at each signature.', {
      certFile: required(path, 'The PEM file of its certificate, and of those between it and a root.'),
      keyFile: required(path, 'The PEM file of its key.'),
      bundleFile: optional(path, 'The PEM file of the roots. Needed when the certificate is no root itself.'),
    }),
    spire: optionalSection(
      'Another SPIFFE server of this trust domain, above this one: Mutual or SPIRE. Below it this server needs an entry marked downstream.',
      {
        server: required(hostPort(1), 'Where that server listens.'),
        workloadApiSocket: required(
          socketPath,
          'The Workload API of an agent below that server, which gives this one its SVID there.',
        ),
      },
    ),
    csr: optionalSection(
      'Somebody signs by hand: the request goes out in a file, and the certificate comes in by one.',
      {
        requestFile: required(path, 'The PEM file that this server writes its request to.'),
        certFile: required(
          path,
          'The PEM file to put the signed certificate in, and after it those between it and a root.',
        ),
        bundleFile: optional(path, 'The PEM file of the roots. Needed when the last certificate there is no root.'),
      },
    ),
    vault: optionalSection('An authority in the PKI engine of Vault or OpenBao.', {
      ...vaultLogin,
      pkiPath: setting(mountPath, 'pki', 'Where the PKI engine is mounted.'),
      issuer: setting(mountPath, 'default', 'The name of the issuer that signs.'),
      bundleFile: optional(path, 'The PEM file of the roots. Needed when the engine does not hold its root.'),
    }),
    certManager: optionalSection('An issuer of cert-manager in Kubernetes.', {
      namespace: required(kubernetesName, 'The namespace that requests are made in.'),
      issuer: required(kubernetesName, 'The name of the issuer.'),
      issuerKind: setting(text, 'Issuer', 'Its kind: `Issuer`, `ClusterIssuer` or that of another controller.'),
      issuerGroup: setting(text, 'cert-manager.io', 'The API group of that kind.'),
      address: setting(serviceUrl, 'https://kubernetes.default.svc', 'Where the API of Kubernetes answers.'),
      caFile: setting(path, `${serviceAccount}/ca.crt`, 'The PEM file of the roots of its certificate.'),
      tokenFile: setting(path, `${serviceAccount}/token`, 'The file of the token to show, read at each call.'),
      bundleFile: optional(path, 'The PEM file of the roots. Needed when the issuer does not tell its own.'),
    }),
    // The names are those of SPIRE's plugin aws_pca.
    awsPca: optionalSection(
      'A certificate authority of AWS Private CA. Needs the package `@aws-sdk/client-acm-pca`; credentials come from where the AWS SDK looks for them.',
      {
        region: required(text, 'The region.'),
        certificateAuthorityArn: required(authorityArn, 'Which authority signs.'),
        signingAlgorithm: optional(
          choice(...pcaAlgorithms),
          'How it signs. Otherwise as AWS says that it was itself signed.',
        ),
        caSigningTemplateArn: optional(
          templateArn,
          'The template of our certificate. Otherwise `SubordinateCACertificate_PathLen0/V1`, which allows no server below this one.',
        ),
        endpoint: optional(serviceUrl, "Another address than the region's."),
        assumeRoleArn: optional(
          roleArn,
          'A role to assume, which may use the authority. Needs the package `@aws-sdk/client-sts`.',
        ),
        supplementalBundlePath: optional(
          path,
          'A PEM file of roots to trust beside the one that the chain of the authority ends with.',
        ),
      },
    ),
  },
);

export type UpstreamOptions = OptionsOf<typeof upstreamSection.table>;

const sections: Readonly<Record<UpstreamName, string>> = {
  disk: 'disk',
  spire: 'spire',
  csr: 'csr',
  vault: 'vault',
  'cert-manager': 'certManager',
  'aws-pca': 'awsPca',
};

interface Ruled {
  readonly upstream: UpstreamOptions;
  readonly keys: { readonly store: string };
}

export const upstreamRules: readonly Rule<Ruled>[] = [
  {
    needs: ['upstream.authority', 'keys.store'],
    check({ upstream, keys }, report) {
      if (upstream.authority === 'csr' && keys.store === 'memory')
        report.fault(
          'keys.store',
          'is memory: its keys end with the server, and each would have to be signed by hand anew',
        );
    },
  },
  {
    needs: ['upstream.awsPca.region', 'upstream.awsPca.certificateAuthorityArn'],
    check({ upstream: { awsPca } }, report) {
      if (awsPca === undefined || awsPca.certificateAuthorityArn.split(':')[3] === awsPca.region) return;
      report.fault(
        'upstream.awsPca.region',
        `is ${quote(awsPca.region)}, and ${quote(awsPca.certificateAuthorityArn)} is an authority of another region`,
      );
    },
  },
  {
    needs: ['upstream.authority'],
    check({ upstream }, report) {
      if (upstream.authority === 'none') return;
      const needed = sections[upstream.authority];
      if (!(needed in upstream)) {
        report.fault(
          'upstream.authority',
          `is ${upstream.authority}, and nothing below upstream.${needed} says where that is`,
        );
      }
    },
  },
];
