/**
 * Keys of a PKCS#11 token (a hardware security module, a smart card, SoftHSM), through pkcs11js, which is optional and
 * loaded when used. Private keys are made on the token, sensitive and not extractable. The label of a key is
 * `mutual/<trust domain>/<server>/<id>`; its CKA_ID begins with the time it was made, which orders the generations of a name.
 */
import { createHash } from 'node:crypto';
import { describeSpki, keyTypeOfShape, keyTypes } from '../crypto/algorithms.ts';
import { bitString, integer, nothing, objectId, sequence } from '../crypto/der.ts';
import { Fault, quote } from '../errors.ts';
import { generations, generationTime } from './key-name.ts';
import type { KeyStore } from './key-store.ts';
import { type LoadPackage, loadOptional } from './load-package.ts';
import type { Pkcs11Options } from './options.ts';
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

type Handle = Buffer;
type Template = { type: number; value?: unknown }[];
/** What is used of pkcs11js. Numbers such as CKA_LABEL are members of the module. */
interface Cryptoki {
  load(path: string): void;
  C_Initialize(options: object): void;
  C_GetSlotList(tokenPresent: boolean): Handle[];
  C_GetTokenInfo(slot: Handle): { label: string };
  C_OpenSession(slot: Handle, flags: number): Handle;
  C_CloseSession(session: Handle): void;
  C_Login(session: Handle, user: number, pin: string): void;
  C_GenerateKeyPairAsync(
    session: Handle,
    mechanism: object,
    publicKey: Template,
    privateKey: Template,
  ): Promise<{ publicKey: Handle; privateKey: Handle }>;
  C_FindObjectsInit(session: Handle, template: Template): void;
  C_FindObjects(session: Handle, most: number): Handle[];
  C_FindObjectsFinal(session: Handle): void;
  C_GetAttributeValue(session: Handle, object: Handle, template: Template): { type: number; value: Buffer }[];
  C_SignInit(session: Handle, mechanism: object, key: Handle): void;
  C_SignAsync(session: Handle, data: Buffer, into: Buffer): Promise<Buffer>;
  C_DestroyObject(session: Handle, object: Handle): void;
}
type Module = { PKCS11: new () => Cryptoki } & { readonly [constant: `CK${string}`]: number };

/** More sessions than this are not kept for the next one. */
const mostIdle = 8;
/** The session, the login or the handle is of before: with new ones the same call may work. */
const stale = new Set([
  'CKR_SESSION_HANDLE_INVALID',
  'CKR_SESSION_CLOSED',
  'CKR_USER_NOT_LOGGED_IN',
  'CKR_OBJECT_HANDLE_INVALID',
  'CKR_KEY_HANDLE_INVALID',
  'CKR_CRYPTOKI_NOT_INITIALIZED',
  'CKR_DEVICE_REMOVED',
  'CKR_TOKEN_NOT_PRESENT',
  'CKR_DEVICE_ERROR',
  'CKR_SLOT_ID_INVALID',
]);

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
    token.close();
    throw error;
  }
}

interface Token {
  /** Work in a session of its own, logged in. When the session turns out to be of before, once more in a new one. */
  use<T>(work: (session: Handle, cryptoki: Cryptoki) => T | Promise<T>): Promise<T>;
  close(): void;
}

const nameOf = (options: Pkcs11Options): string => `PKCS#11 token ${quote(options.token)}`;

function openToken(module: Module, options: Pkcs11Options, pin: string): Token {
  const name = nameOf(options);
  const cryptoki = new module.PKCS11();
  try {
    cryptoki.load(options.library);
  } catch (error) {
    throw new Fault('config/invalid', `the PKCS#11 library ${quote(options.library)} cannot be loaded`, {
      hint: "Give keys.pkcs11.library the path of the token maker's library, built for this machine.",
      detail: String(error),
      cause: error,
    });
  }
  initialize(module, cryptoki);

  let slot: Handle | undefined;
  /** Keeps the login: the token forgets it with the last session. */
  let anchor: Handle | undefined;
  let idle: Handle[] = [];
  let wrongPin: Fault | undefined;

  function open(): Handle {
    // Every wrong PIN brings the token nearer to being locked.
    if (wrongPin !== undefined) throw wrongPin;
    slot ??= slotOf(cryptoki, options, name);
    const flags = module.CKF_RW_SESSION! | module.CKF_SERIAL_SESSION!;
    anchor ??= cryptoki.C_OpenSession(slot, flags);
    const session = cryptoki.C_OpenSession(slot, flags);
    try {
      cryptoki.C_Login(session, module.CKU_USER!, pin);
    } catch (error) {
      if (codeOf(error) === 'CKR_USER_ALREADY_LOGGED_IN') return session;
      closeQuietly(session);
      if (/^CKR_PIN_/.test(codeOf(error))) {
        wrongPin = new Fault('config/invalid', `the PIN does not open the ${name} (${codeOf(error)})`, {
          hint: 'Give the right one, then start again; it is not tried a second time, so that the token is not locked.',
        });
        throw wrongPin;
      }
      throw error;
    }
    return session;
  }
  function closeQuietly(session: Handle): void {
    try {
      cryptoki.C_CloseSession(session);
    } catch {
      // It is gone already.
    }
  }
  function reset(): void {
    for (const session of [...idle, ...(anchor ? [anchor] : [])]) closeQuietly(session);
    idle = [];
    anchor = undefined;
    slot = undefined;
  }

  return {
    async use(work) {
      for (let attempt = 0; ; attempt++) {
        let session: Handle | undefined;
        try {
          session = idle.pop() ?? open();
          const result = await work(session, cryptoki);
          if (idle.length < mostIdle) idle.push(session);
          else closeQuietly(session);
          return result;
        } catch (error) {
          if (session !== undefined) closeQuietly(session);
          if (attempt > 0 || !stale.has(codeOf(error))) throw error;
          reset();
          if (codeOf(error) === 'CKR_CRYPTOKI_NOT_INITIALIZED') initialize(module, cryptoki);
        }
      }
    },
    close: reset,
  };
}

/** The library is one for the whole process, which is why nobody ever finalizes it. */
function initialize(module: Module, cryptoki: Cryptoki): void {
  try {
    cryptoki.C_Initialize({ flags: module.CKF_OS_LOCKING_OK! });
  } catch (error) {
    if (codeOf(error) !== 'CKR_CRYPTOKI_ALREADY_INITIALIZED') {
      throw new Fault('keys/unavailable', `the PKCS#11 library does not start (${codeOf(error)})`, {
        hint: 'See its own configuration and log.',
        detail: String(error),
        cause: error,
      });
    }
  }
}

function slotOf(cryptoki: Cryptoki, options: Pkcs11Options, name: string): Handle {
  const slots = cryptoki
    .C_GetSlotList(true)
    .map((slot) => ({ slot, label: cryptoki.C_GetTokenInfo(slot).label.trim() }));
  const found = slots.filter(({ label }) => label === options.token);
  if (found.length === 1) return found[0]!.slot;
  const labels = slots.map(({ label }) => quote(label)).join(', ') || 'none';
  throw found.length === 0
    ? unreachable(name, `keys.pkcs11.token; the tokens that are there: ${labels}`, 'is not there')
    : new Fault('config/invalid', `${found.length} tokens have the label ${quote(options.token)}`, {
        hint: 'Give each a label of its own.',
      });
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
    if (type === undefined) return undefined;
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
      token.use(async (session, cryptoki) => {
        const { shape } = keyTypes[type];
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
        const { shape, hash } = keyTypes[key.type];
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
          return await cryptoki.C_SignAsync(session, input, Buffer.alloc(1024));
        } catch (error) {
          handles.delete(key.handle);
          throw error;
        }
      }),
    destroy: (key) =>
      token.use((session, cryptoki) => {
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

/** `CKR_...`, or empty. */
function codeOf(error: unknown): string {
  return /CKR_[A-Z0-9_]+/.exec(String((error as Error | undefined)?.message ?? ''))?.[0] ?? '';
}
