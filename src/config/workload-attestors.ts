/** The options of the workload attestors beside `unix`, each a section that is there when the attestor is wanted. */
import { optional, optionalSection, type Rule, required, setting } from '../config.ts';
import { Fault, quote } from '../errors.ts';
import {
  count,
  duration,
  type HostPort,
  hostPort,
  type Kind,
  listOf,
  path,
  socketPath,
  text,
  toggle,
} from './kinds.ts';

const apiVersion: Kind<string> = {
  ...text,
  name: 'API version',
  placeholder: 'N.N',
  read(given) {
    const plain = text.read(given);
    if (/^\d{1,2}\.\d{1,3}$/.test(plain)) return plain;
    throw new Fault('config/invalid', `${quote(plain)} is not a version of the API, such as 1.41`);
  },
};

/** uid_t without -1, which stands for nobody. Root has its own engine. */
const largestUid = 2 ** 32 - 2;
const port = count(1, 65_535);
/** Where Kubernetes puts the account of a pod. */
const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount';
const version = optional(apiVersion, 'The version of the API to speak; without it the newest of the engine.');

export const workloadAttestorSections = {
  docker: optionalSection('Labels, environment and image of Docker containers.', {
    socketPath: setting(socketPath, '/var/run/docker.sock', 'The socket of the engine.'),
    version,
  }),
  podman: optionalSection('The same of Podman containers.', {
    socketPath: setting(socketPath, '/run/podman/podman.sock', "The socket of root's engine."),
    users: setting(
      listOf(count(1, largestUid)),
      [],
      'The users, by uid, whose rootless engines are believed. Whoever runs an engine can have it say anything of the containers of that user.',
    ),
    userSocketPath: setting(
      path,
      '/run/user/%d/podman/podman.sock',
      "The socket of a user's engine; `%d` stands for the uid.",
    ),
    version,
  }),
  k8s: optionalSection('The pod and the container of a process, told by the kubelet of this node.', {
    nodeName: optional(
      text,
      "The node's name, by which kubelet is reached and its certificate checked; without it 127.0.0.1 is.",
      { env: 'MY_NODE_NAME' },
    ),
    kubeletSecurePort: setting(port, 10250, 'The port of kubelet with TLS.'),
    kubeletReadOnlyPort: optional(
      port,
      'The port without TLS, where kubelet has one; it takes the place of the other.',
    ),
    kubeletCaPath: setting(
      path,
      `${serviceAccount}/ca.crt`,
      "A PEM file with the roots that kubelet's certificate is checked by.",
    ),
    skipKubeletVerification: setting(toggle, false, 'Believes any certificate of kubelet.'),
    tokenPath: setting(path, `${serviceAccount}/token`, 'The token to show kubelet, read anew each time.'),
    certificatePath: optional(path, 'A PEM file with a client certificate, shown in place of a token.'),
    privateKeyPath: optional(path, 'The PEM file of its key.'),
    useAnonymousAuthentication: setting(toggle, false, 'Shows kubelet neither a token nor a certificate.'),
    maxPollAttempts: setting(count(1, 600), 60, 'How often kubelet is asked about a container it does not list yet.'),
    pollRetryInterval: setting(duration(10, 60_000), 500, 'How long to wait between two of those.'),
    reloadInterval: setting(
      duration(1_000, 86_400_000),
      60_000,
      'How long certificates count that were read, and what was found of a pod, whose labels may change.',
    ),
    useApiServer: setting(
      toggle,
      false,
      'Asks the API server for the pods of `nodeName` in place of kubelet, where a node lets nobody at that.',
    ),
    namespaceLabels: setting(toggle, false, "Adds the labels of a pod's namespace, which only the API server knows."),
    apiServer: setting<HostPort>(
      hostPort(1),
      { host: 'kubernetes.default.svc', port: 443 },
      'Where the API server is; its certificate has to name that.',
    ),
    apiServerCaPath: setting(
      path,
      `${serviceAccount}/ca.crt`,
      'A PEM file with the roots that its certificate is checked by.',
    ),
    disableContainerSelectors: setting(
      toggle,
      false,
      'Gives what is known of the pod alone, also before kubelet lists the container.',
    ),
  }),
  sigstore: optionalSection('Who signed the images of containers that docker, podman and k8s know.', {
    trustedRootPath: required(
      path,
      'The trusted_root.json of Sigstore or of an instance of your own, read again when it changes. It is never fetched.',
    ),
    bundleDirectory: required(
      path,
      'Where the signatures are: in a directory `sha256-HEX` for each digest of an image, Sigstore bundles in `.json` files.',
    ),
    allowedIdentities: setting(
      listOf(text),
      [],
      'Whose signatures count, each as `ISSUER SUBJECT`, with `*` for any text.',
    ),
  }),
  slurm: optionalSection('The job and the step of Slurm that a process is in.', {
    enabled: setting(toggle, true, 'Asks for it; a section with nothing in it is enough.'),
  }),
  systemd: optionalSection('The systemd unit of a process.', {
    socketPath: setting(socketPath, '/run/dbus/system_bus_socket', 'The socket of the system bus.'),
  }),
} as const;

interface WithAttestors {
  readonly workloadAttestors: {
    readonly k8s?: {
      readonly useApiServer: boolean;
      readonly nodeName?: string;
      readonly kubeletReadOnlyPort?: number;
      readonly skipKubeletVerification: boolean;
      readonly useAnonymousAuthentication: boolean;
      readonly certificatePath?: string;
      readonly privateKeyPath?: string;
    };
    readonly sigstore?: { readonly allowedIdentities: readonly string[] };
    readonly podman?: { readonly users: readonly number[]; readonly userSocketPath: string };
  };
}

/** What must be given together, and what is hardly meant. */
export const workloadAttestorRules: readonly Rule<WithAttestors>[] = [
  {
    needs: ['workloadAttestors.k8s.useApiServer', 'workloadAttestors.k8s.nodeName'],
    check({ workloadAttestors: { k8s } }, report) {
      if (k8s?.useApiServer && k8s.nodeName === undefined)
        report.fault(
          'workloadAttestors.k8s.nodeName',
          'is needed with useApiServer: the pods of which node to ask for',
        );
    },
  },
  {
    needs: ['workloadAttestors.k8s.certificatePath', 'workloadAttestors.k8s.privateKeyPath'],
    check({ workloadAttestors: { k8s } }, report) {
      if (k8s === undefined) return;
      const at = 'workloadAttestors.k8s';
      if ((k8s.certificatePath === undefined) !== (k8s.privateKeyPath === undefined)) {
        const missing = k8s.certificatePath === undefined ? 'certificatePath' : 'privateKeyPath';
        report.fault(`${at}.${missing}`, 'is needed too: a certificate and its key are given together');
      } else if (k8s.certificatePath !== undefined && k8s.useAnonymousAuthentication) {
        report.fault(`${at}.useAnonymousAuthentication`, 'is given beside certificatePath; keep one');
      }
      if (k8s.skipKubeletVerification && k8s.kubeletReadOnlyPort === undefined)
        report.warn(`${at}.skipKubeletVerification`, 'whoever answers on the port of kubelet says what every pod is');
    },
  },
  {
    needs: ['workloadAttestors.sigstore.allowedIdentities'],
    check({ workloadAttestors: { sigstore } }, report) {
      if (sigstore === undefined) return;
      const at = 'workloadAttestors.sigstore.allowedIdentities';
      if (sigstore.allowedIdentities.length === 0)
        report.fault(at, 'is empty, so that nobody\'s signatures would count; give at least one "ISSUER SUBJECT"');
      for (const one of sigstore.allowedIdentities) {
        if (/^\S+\s+\S+$/.test(one.trim())) continue;
        report.fault(at, `${quote(one)} is not an issuer and a subject with a blank between`);
      }
    },
  },
  {
    needs: ['workloadAttestors.podman.users', 'workloadAttestors.podman.userSocketPath'],
    check({ workloadAttestors: { podman } }, report) {
      if (podman === undefined || podman.users.length < 2 || podman.userSocketPath.includes('%d')) return;
      report.fault(
        'workloadAttestors.podman.userSocketPath',
        `${quote(podman.userSocketPath)} is one socket for several users; write %d where the uid belongs`,
      );
    },
  },
];
