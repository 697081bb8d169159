/**
 * A fake: an authority of AWS Private CA, as stand-ins for the packages @aws-sdk/client-acm-pca and @aws-sdk/client-sts. It
 * really signs, takes its time to, and refuses every field that the API does not have there and every request that AWS
 * would refuse; so do its states. `call` is for what puts it behind the real SDK.
 */
import { parseCsr } from '../../src/crypto/csr.ts';
import { pemDecode, pemEncode } from '../../src/crypto/pem.ts';
import type { Clock } from '../../src/run/clock.ts';
import { trustDomainId } from '../../src/spiffe/id.ts';
import { type TestAuthority, testAuthority } from './ca.ts';
import { awsError } from './fake-aws-kms.ts';
import { td } from './server.ts';

const hour = 3_600_000;
export const region = 'eu-test-1';
export const arn = `arn:aws:acm-pca:${region}:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555`;
export const role = 'arn:aws:iam::123456789012:role/identity';

type Input = Record<string, unknown>;
type Command = (input: Input) => object;

export interface FakeAwsPca {
  /** By their names. */
  readonly packages: Readonly<Record<string, object>>;
  /** Every call, in order. */
  readonly calls: { readonly command: string; readonly input: Input }[];
  /** What was made, by its ARN; a request that is repeated within five minutes makes nothing. */
  readonly made: Map<string, { token: string; at: number; chain: readonly Buffer[] }>;
  /** What signs, and what it tells of those above; a test may put others in their place. */
  authority: TestAuthority;
  above: readonly Buffer[];
  status: string;
  usageMode: string;
  /** How often a certificate is not there yet. */
  delay: number;
  /** Thrown by a command instead, or in the place of one answer. */
  readonly failures: Map<string, Error>;
  /** Whether only the credentials of the role may do anything. */
  needsRole: boolean;
  call(command: string, input: Input): object;
}

function fields(input: Input, required: readonly string[], optional: readonly string[] = []): void {
  for (const field of Object.keys(input))
    if (![...required, ...optional].includes(field)) throw awsError(`ValidationException:${field}`);
  for (const field of required) if (input[field] === undefined) throw awsError(`ValidationException:no ${field}`);
}

export function fakeAwsPca(clock: Clock, { intermediate = false } = {}): FakeAwsPca {
  const root = testAuthority({ now: clock.now() });
  const pem = (all: readonly Buffer[]) => all.map((der) => pemEncode('CERTIFICATE', der)).join('');
  const asked = new Map<string, number>();

  function knows(input: Input): void {
    if (input.CertificateAuthorityArn !== arn) throw awsError('ResourceNotFoundException');
  }
  function isActive(): void {
    if (fake.status !== 'ACTIVE') throw awsError('InvalidStateException');
  }
  const isRsa = () => fake.authority.key.type.startsWith('rsa');

  const commands: Readonly<Record<string, Command>> = {
    DescribeCertificateAuthority(input) {
      fields(input, ['CertificateAuthorityArn']);
      knows(input);
      const { notAfter } = fake.authority.certificate;
      return {
        CertificateAuthority: {
          Arn: arn,
          Status: fake.status,
          ...(fake.status === 'FAILED' && { FailureReason: 'OTHER' }),
          ...(fake.status !== 'PENDING_CERTIFICATE' && { NotAfter: new Date(notAfter) }),
          UsageMode: fake.usageMode,
          CertificateAuthorityConfiguration: { SigningAlgorithm: isRsa() ? 'SHA256WITHRSA' : 'SHA256WITHECDSA' },
        },
      };
    },
    GetCertificateAuthorityCertificate(input) {
      fields(input, ['CertificateAuthorityArn']);
      knows(input);
      isActive();
      return {
        Certificate: pem([fake.authority.der]),
        ...(fake.above.length > 0 && { CertificateChain: pem(fake.above) }),
      };
    },
    IssueCertificate(input) {
      fields(
        input,
        ['CertificateAuthorityArn', 'Csr', 'SigningAlgorithm', 'Validity'],
        ['TemplateArn', 'IdempotencyToken'],
      );
      knows(input);
      isActive();
      const { Csr, SigningAlgorithm, Validity, TemplateArn, IdempotencyToken: token } = input;
      if (!(Csr instanceof Uint8Array)) throw awsError('ValidationException:Csr');
      const csr = parseCsr(pemDecode(Buffer.from(Csr).toString('latin1'), 'CERTIFICATE REQUEST', 'request')[0]!);
      if (!csr.verify() || csr.uris.join() !== trustDomainId(td)) throw awsError('MalformedCSRException');
      if (SigningAlgorithm !== (isRsa() ? 'SHA256WITHRSA' : 'SHA256WITHECDSA'))
        throw awsError('ValidationException:alg');
      if (typeof token !== 'string' || !/^[ -~]{1,36}$/.test(token)) throw awsError('ValidationException:token');
      const pathLength = /^arn:aws:acm-pca:::template\/SubordinateCACertificate_PathLen([0-3])\/V1$/.exec(
        String(TemplateArn),
      );
      if (!pathLength) throw awsError('InvalidArgsException');
      const { Type, Value, ...more } = Validity as { Type: string; Value: number };
      if (Type !== 'ABSOLUTE' || !Number.isInteger(Value) || Object.keys(more).length > 0)
        throw awsError('ValidationException:Validity');
      const notAfter = Value * 1000;
      const longest = fake.usageMode === 'GENERAL_PURPOSE' ? Number.POSITIVE_INFINITY : clock.now() + 7 * 24 * hour;
      if (notAfter <= clock.now() || notAfter > Math.min(fake.authority.certificate.notAfter, longest))
        throw awsError('ValidationException:exceeds the certificate authority validity');
      for (const [made, before] of fake.made)
        if (before.token === token && clock.now() < before.at + 5 * 60_000) return { CertificateArn: made };
      const issued = fake.authority.issue({
        ...{ ca: true, pathLength: Number(pathLength[1]), uris: csr.uris, subject: csr.subject },
        ...{ publicKey: csr.spki, notBefore: clock.now() - hour, notAfter },
      });
      const CertificateArn = `${arn}/certificate/${fake.made.size}`;
      fake.made.set(CertificateArn, { token, at: clock.now(), chain: [issued.der, fake.authority.der, ...fake.above] });
      return { CertificateArn };
    },
    GetCertificate(input) {
      fields(input, ['CertificateAuthorityArn', 'CertificateArn']);
      knows(input);
      const found = fake.made.get(String(input.CertificateArn));
      if (!found) throw awsError('ResourceNotFoundException');
      const times = (asked.get(String(input.CertificateArn)) ?? 0) + 1;
      asked.set(String(input.CertificateArn), times);
      if (times <= fake.delay) throw awsError('RequestInProgressException');
      const [own, ...above] = found.chain;
      return { Certificate: pem([own!]), CertificateChain: pem(above) };
    },
    AssumeRole(input) {
      fields(input, ['RoleArn', 'RoleSessionName']);
      if (input.RoleArn !== role) throw awsError('AccessDenied', 403);
      if (!/^[\w+=,.@-]{2,64}$/.test(String(input.RoleSessionName))) throw awsError('ValidationError');
      const Expiration = new Date(clock.now() + hour);
      return { Credentials: { AccessKeyId: 'of-the-role', SecretAccessKey: 's', SessionToken: 't', Expiration } };
    },
  };

  interface Config {
    region?: string;
    credentials?: () => Promise<{ accessKeyId: string; sessionToken: string; expiration: Date }>;
  }
  class Client {
    readonly config: Config;
    constructor(config: Config) {
      if (config.region !== region) throw new Error(`region ${config.region}`);
      this.config = config;
    }
    async send({ name, input }: { name: string; input: Input }): Promise<object> {
      const given = await this.config.credentials?.();
      if (fake.needsRole && name !== 'AssumeRole' && given?.accessKeyId !== 'of-the-role')
        throw awsError('AccessDeniedException');
      return fake.call(name, input);
    }
    destroy(): void {}
  }
  const commandOf = (name: string) => [
    `${name}Command`,
    class {
      readonly name = name;
      readonly input: Input;
      constructor(input: Input) {
        this.input = input;
      }
    },
  ];
  const pca = Object.keys(commands).filter((name) => name !== 'AssumeRole');
  const authority = intermediate ? root.intermediate() : root;
  const fake: FakeAwsPca = {
    packages: {
      '@aws-sdk/client-acm-pca': { ACMPCAClient: Client, ...Object.fromEntries(pca.map(commandOf)) },
      '@aws-sdk/client-sts': { STSClient: Client, ...Object.fromEntries([commandOf('AssumeRole')]) },
    },
    calls: [],
    made: new Map(),
    authority,
    above: intermediate ? [root.der] : [],
    status: 'ACTIVE',
    usageMode: 'GENERAL_PURPOSE',
    delay: 0,
    failures: new Map(),
    needsRole: false,
    call(command, input) {
      fake.calls.push({ command, input });
      const failure = fake.failures.get(command) ?? fake.failures.get('*');
      if (failure) throw failure;
      return commands[command]!(input);
    },
  };
  return fake;
}

/** Puts the authority below another root, as an operator does who imports another certificate for it. */
export function rotateAwsPca(fake: FakeAwsPca, clock: Clock, { intermediate = false } = {}): void {
  const root = testAuthority({ now: clock.now() });
  fake.authority = intermediate ? root.intermediate() : root;
  fake.above = intermediate ? [root.der] : [];
}
