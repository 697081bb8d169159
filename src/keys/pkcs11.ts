/**
 * Keys of a PKCS#11 token (a hardware security module, a smart card, SoftHSM), through pkcs11js, which is optional and
 * loaded when used. Private keys are made on the token, sensitive and not extractable. The label of a key is
 * `mutual/<trust domain>/<server>/<id>`; its CKA_ID begins with the time it was made, which orders the generations of a name.
 */
import { createHash } from 'node:crypto';
import { classicKeyTypes, describeSpki, isMlDsa, keyTypeOfShape } from '../crypto/algorithms.ts';
import { bitString, integer, nothing, objectId, sequence } from '../crypto/der.ts';
import { quote } from '../errors.ts';
import { generations, generationTime } from './key-name.ts';
import type { KeyStore } from './key-store.ts';
import { type LoadPackage, loadOptional } from './load-package.ts';
import type { Pkcs11Options } from './options.ts';
import {
  type Cryptoki,
  codeOf,
  type Handle,
  type Module,
  nameOf,
  openToken,
  stale,
  type Template,
  type Token,
} from './pkcs11-token.ts';
import {
  lost,
  type Remote,
  type RemoteKey,
  type RemotePorts,
  refused,
  remoteKeys,
  unreachable,
} from './remote-keys.ts';
import { readSecret } from './secret-file.ts';

/** Curve parameters (CKA_EC_PARAMS), and the algorithm of a public key. */
const curves = {
  'P-256': objectId('1.2.840.10045.3.1.7'),
  'P-384': objectId('1.3.132.0.34'),
} as const;
const ecPublicKey = objectId('1.2.840.10045.2.1');
const rsaEncryption = sequence(objectId('1.2.840.113549.1.1.1'), nothing());

/** Opens the token and logs in. Throws `config/invalid` for what was configured wrongly, `keys/unavailable` for the token. */
export async function pkcs11Keys(
  options: Pkcs11Options,
  owner: { trustDomain: string; server: string },
  ports: RemotePorts & { load: LoadPackage },
): Promise<KeyStore> {
  const module = await loadOptional<Module>(ports.load, 'pkcs11js', 'keys.store pkcs11');
  const pin = await readSecret(
    { value: options.pin, file: options.pinFile },
    'PIN of the token',
    'Give keys.pkcs11.pinFile or MUTUAL_KEYS_PKCS11_PIN.',
  );
  const token = openToken(module, options, pin);
  try {
    return await remoteKeys(tokenRemote(module, token, options, owner, ports), ports);
  } catch (error) {
    await token.close();
    throw error;
  }
}

function tokenRemote(
  module: Module,
  token: Token,
  options: Pkcs11Options,
  { trustDomain, server }: { trustDomain: string; server: string },
  { clock, random }: RemotePorts,
): Remote {
  const name = nameOf(options);
  const generation = generations(clock, random);
  const prefix = `mutual/${trustDomain}/${server}/`;
  /** Object handles of private keys by CKA_ID in hex. A handle means nothing after a reset, and is then looked for anew. */
  const handles = new Map<string, Handle>();
  const constant = (of: `CK${string}`): number => module[of]!;
  const beingSigned = new Set<Buffer>();

  function find(session: Handle, cryptoki: Cryptoki, template: Template): Handle[] {
    cryptoki.C_FindObjectsInit(session, template);
    try {
      const all: Handle[] = [];
      for (;;) {
        const some = cryptoki.C_FindObjects(session, 64);
        if (some.length === 0) return all;
        all.push(...some);
      }
    } finally {
      cryptoki.C_FindObjectsFinal(session);
    }
  }
  const attribute = (session: Handle, cryptoki: Cryptoki, object: Handle, of: `CKA_${string}`): Buffer =>
    Buffer.from(cryptoki.C_GetAttributeValue(session, object, [{ type: constant(of) }])[0]!.value);
  const isPrivate = (): Template => [{ type: constant('CKA_CLASS'), value: constant('CKO_PRIVATE_KEY') }];
  const isPublic = (): Template => [{ type: constant('CKA_CLASS'), value: constant('CKO_PUBLIC_KEY') }];
  const withId = (id: string): Template => [{ type: constant('CKA_ID'), value: Buffer.from(id, 'hex') }];

  function describe(session: Handle, cryptoki: Cryptoki, object: Handle): RemoteKey | undefined {
    const label = attribute(session, cryptoki, object, 'CKA_LABEL').toString('utf8');
    const id = attribute(session, cryptoki, object, 'CKA_ID');
    const made = generationTime(id.toString('hex'));
    if (!label.startsWith(prefix) || made === undefined) return undefined;
    const publicKey = spkiOf(
      (of) => attribute(session, cryptoki, object, of),
      attribute(session, cryptoki, object, 'CKA_KEY_TYPE').readUInt8(0) === constant('CKK_EC'),
    );
    const type = keyTypeOfShape(describeSpki(publicKey, `public key of ${quote(label)}`));
    if (type === undefined || isMlDsa(type)) return undefined;
    return {
      id: label.slice(prefix.length),
      owner: server,
      handle: id.toString('hex'),
      made,
      type,
      publicKey,
    };
  }

  return {
    name,
    owner: server,
    ecdsa: 'raw',
    create: (id, type) =>
      token.change(async (session, cryptoki) => {
        const { shape } = classicKeyTypes[type];
        const number = Buffer.from(generation(), 'hex');
        const shared: Template = [
          { type: constant('CKA_TOKEN'), value: true },
          { type: constant('CKA_LABEL'), value: `${prefix}${id}` },
          { type: constant('CKA_ID'), value: number },
        ];
        const kind: Template =
          shape.kind === 'rsa'
            ? [
                { type: constant('CKA_MODULUS_BITS'), value: shape.bits },
                { type: constant('CKA_PUBLIC_EXPONENT'), value: Buffer.of(1, 0, 1) },
              ]
            : [{ type: constant('CKA_EC_PARAMS'), value: curves[(shape as { curve: 'P-256' | 'P-384' }).curve] }];
        const mechanism = constant(shape.kind === 'rsa' ? 'CKM_RSA_PKCS_KEY_PAIR_GEN' : 'CKM_EC_KEY_PAIR_GEN');
        const made = await cryptoki.C_GenerateKeyPairAsync(
          session,
          { mechanism },
          [
            ...shared,
            ...kind,
            { type: constant('CKA_PRIVATE'), value: false },
            { type: constant('CKA_VERIFY'), value: true },
          ],
          [
            ...shared,
            { type: constant('CKA_PRIVATE'), value: true },
            { type: constant('CKA_SENSITIVE'), value: true },
            { type: constant('CKA_EXTRACTABLE'), value: false },
            { type: constant('CKA_SIGN'), value: true },
          ],
        );
        handles.set(number.toString('hex'), made.privateKey);
        return describe(session, cryptoki, made.publicKey) as RemoteKey;
      }),
    list: () =>
      token.use((session, cryptoki) => {
        // The private halves are what counts; a public one alone is of no use.
        const signing = new Set(
          find(session, cryptoki, isPrivate()).map((object) =>
            attribute(session, cryptoki, object, 'CKA_ID').toString('hex'),
          ),
        );
        return find(session, cryptoki, isPublic())
          .filter((object) => signing.has(attribute(session, cryptoki, object, 'CKA_ID').toString('hex')))
          .map((object) => describe(session, cryptoki, object))
          .filter((key) => key !== undefined);
      }),
    sign: (key, data) =>
      token.use(async (session, cryptoki) => {
        const { shape, hash } = classicKeyTypes[key.type];
        try {
          const object = handles.get(key.handle) ?? find(session, cryptoki, [...isPrivate(), ...withId(key.handle)])[0];
          if (object === undefined) throw lost(name, key.id, `no private key with CKA_ID ${key.handle}`);
          handles.set(key.handle, object);
          // Hashing here keeps what crosses to the token small; not every token can hash for ECDSA.
          const [mechanism, input] =
            shape.kind === 'rsa'
              ? [constant('CKM_SHA256_RSA_PKCS'), data]
              : [constant('CKM_ECDSA'), createHash(hash).update(data).digest()];
          cryptoki.C_SignInit(session, { mechanism }, object);
          // The package holds no reference to what another thread reads for it.
          beingSigned.add(input);
          return await cryptoki
            .C_SignAsync(session, input, Buffer.alloc(1024))
            .finally(() => beingSigned.delete(input));
        } catch (error) {
          handles.delete(key.handle);
          throw error;
        }
      }),
    destroy: (key) =>
      token.change((session, cryptoki) => {
        handles.delete(key.handle);
        for (const half of [isPrivate(), isPublic()])
          for (const object of find(session, cryptoki, [...half, ...withId(key.handle)]))
            cryptoki.C_DestroyObject(session, object);
      }),
    explain(error, doing) {
      const code = codeOf(error);
      return stale.has(code) || code === 'CKR_GENERAL_ERROR' || code === 'CKR_HOST_MEMORY'
        ? unreachable(name, error, `cannot be used (${code || 'no code'})`)
        : refused(name, `${doing}${code ? ` (${code})` : ''}`, error);
    },
    close: () => token.close(),
  };
}

/** SubjectPublicKeyInfo from the attributes of a public key object. */
function spkiOf(attribute: (of: `CKA_${string}`) => Buffer, isEc: boolean): Buffer {
  if (!isEc) {
    const numbers = sequence(integer(attribute('CKA_MODULUS')), integer(attribute('CKA_PUBLIC_EXPONENT')));
    return sequence(rsaEncryption, bitString(numbers));
  }
  const wrapped = attribute('CKA_EC_POINT');
  // An OCTET STRING by the standard; some libraries give the bare point.
  const point = wrapped[0] === 4 && wrapped[1] === wrapped.length - 2 ? wrapped.subarray(2) : wrapped;
  return sequence(sequence(ecPublicKey, attribute('CKA_EC_PARAMS')), bitString(point));
}
