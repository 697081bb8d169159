/**
 * A stand-in for the package pkcs11js with a token behind it: sessions, one login for all of them, objects found by
 * attributes, real keys and real signatures. It refuses what a token refuses, with the same codes.
 */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describeSpki } from '../../src/crypto/algorithms.ts';
import { octetString } from '../../src/crypto/der.ts';
import { publicDer, signDigest } from './sign-digest.ts';

type Handle = Buffer;
type Template = { type: number; value?: unknown }[];

const constants = {
  CKF_OS_LOCKING_OK: 2,
  CKF_RW_SESSION: 2,
  CKF_SERIAL_SESSION: 4,
  CKU_USER: 1,
  CKA_CLASS: 0,
  CKA_TOKEN: 1,
  CKA_PRIVATE: 2,
  CKA_LABEL: 3,
  CKA_KEY_TYPE: 0x100,
  CKA_ID: 0x102,
  CKA_SENSITIVE: 0x103,
  CKA_SIGN: 0x108,
  CKA_VERIFY: 0x10a,
  CKA_MODULUS: 0x120,
  CKA_MODULUS_BITS: 0x121,
  CKA_PUBLIC_EXPONENT: 0x122,
  CKA_EXTRACTABLE: 0x162,
  CKA_EC_PARAMS: 0x180,
  CKA_EC_POINT: 0x181,
  CKO_PUBLIC_KEY: 2,
  CKO_PRIVATE_KEY: 3,
  CKK_RSA: 0,
  CKK_EC: 3,
  CKM_RSA_PKCS_KEY_PAIR_GEN: 0,
  CKM_SHA256_RSA_PKCS: 0x40,
  CKM_EC_KEY_PAIR_GEN: 0x1040,
  CKM_ECDSA: 0x1041,
} as const;

interface Item {
  attributes: Map<number, unknown>;
  privateKey: KeyObject;
}

export interface FakeToken {
  readonly package: object;
  readonly objects: Map<number, Item>;
  readonly logins: string[];
  pin: string;
  label: string;
  /** Whose library it says it is. As SoftHSM it fails whatever is called while a key is being made. */
  manufacturer: string;
  /** As when it is pulled out: sessions, login and handles are gone, and every call fails while it is out. */
  pull(): void;
  plugIn(): void;
  readonly openSessions: number;
}

const fail = (code: string): never => {
  throw new Error(`${code}:1`);
};

export function fakeToken(): FakeToken {
  const objects = new Map<number, Item>();
  const sessions = new Map<number, { found?: number[]; signing?: { mechanism: number; item: Item } }>();
  let next = 100;
  let loggedIn = false;
  let isIn = true;
  let making = 0;
  const handle = (number: number): Handle => {
    const made = Buffer.alloc(8);
    made.writeUInt32LE(number);
    return made;
  };
  const sessionOf = (given: Handle) => {
    if (making > 0 && fake.manufacturer === 'SoftHSM') return fail('CKR_GENERAL_ERROR');
    if (!isIn) return fail('CKR_DEVICE_REMOVED');
    return sessions.get(given.readUInt32LE()) ?? fail('CKR_SESSION_HANDLE_INVALID');
  };
  const itemOf = (given: Handle): Item => objects.get(given.readUInt32LE()) ?? fail('CKR_KEY_HANDLE_INVALID');
  const same = (a: unknown, b: unknown): boolean =>
    Buffer.isBuffer(a) || Buffer.isBuffer(b) ? Buffer.from(a as Buffer).equals(Buffer.from(b as Buffer)) : a === b;

  class PKCS11 {
    load(path: string): void {
      if (path !== '/fake/library.so') throw new Error(`${path}: cannot open shared object file`);
    }
    C_Initialize(): void {
      if (next > 100) fail('CKR_CRYPTOKI_ALREADY_INITIALIZED');
      next++;
    }
    C_GetInfo(): { manufacturerID: string } {
      return { manufacturerID: fake.manufacturer };
    }
    C_GetSlotList(): Handle[] {
      return isIn ? [handle(7)] : [];
    }
    C_GetTokenInfo(): { label: string } {
      return { label: fake.label.padEnd(32) };
    }
    C_OpenSession(_slot: Handle, flags: number): Handle {
      if (!isIn) fail('CKR_TOKEN_NOT_PRESENT');
      if (flags !== 6) fail('CKR_SESSION_PARALLEL_NOT_SUPPORTED');
      sessions.set(++next, {});
      return handle(next);
    }
    C_CloseSession(session: Handle): void {
      sessionOf(session);
      sessions.delete(session.readUInt32LE());
      if (sessions.size === 0) loggedIn = false;
    }
    C_Login(session: Handle, user: number, pin: string): void {
      sessionOf(session);
      if (user !== 1) fail('CKR_USER_TYPE_INVALID');
      if (loggedIn) fail('CKR_USER_ALREADY_LOGGED_IN');
      fake.logins.push(pin);
      if (pin !== fake.pin) fail('CKR_PIN_INCORRECT');
      loggedIn = true;
    }
    async C_GenerateKeyPairAsync(session: Handle, { mechanism }: { mechanism: number }, pub: Template, priv: Template) {
      sessionOf(session);
      making++;
      await new Promise((resolve) => setImmediate(resolve));
      making--;
      if (!loggedIn) fail('CKR_USER_NOT_LOGGED_IN');
      const given = (template: Template): Map<number, unknown> =>
        new Map(template.map(({ type, value }) => [type, typeof value === 'string' ? Buffer.from(value) : value]));
      const [publicOnes, privateOnes] = [given(pub), given(priv)];
      const isRsa = mechanism === constants.CKM_RSA_PKCS_KEY_PAIR_GEN;
      const { CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_TOKEN, CKA_SIGN } = constants;
      if (privateOnes.get(CKA_SENSITIVE) !== true || privateOnes.get(CKA_EXTRACTABLE) !== false)
        fail('CKR_TEMPLATE_INCONSISTENT');
      if (privateOnes.get(CKA_TOKEN) !== true || privateOnes.get(CKA_SIGN) !== true) fail('CKR_TEMPLATE_INCOMPLETE');
      const params = publicOnes.get(constants.CKA_EC_PARAMS) as Buffer | undefined;
      const curve = params?.toString('hex') === '06052b81040022' ? 'P-384' : 'P-256';
      const { privateKey } = isRsa
        ? generateKeyPairSync('rsa', { modulusLength: Number(publicOnes.get(constants.CKA_MODULUS_BITS)) })
        : generateKeyPairSync('ec', { namedCurve: curve });
      const jwk = privateKey.export({ format: 'jwk' });
      const shared = new Map<number, unknown>([
        [constants.CKA_KEY_TYPE, Buffer.from([isRsa ? 0 : 3, 0, 0, 0, 0, 0, 0, 0])],
      ]);
      if (isRsa) {
        shared.set(constants.CKA_MODULUS, Buffer.from(String(jwk.n), 'base64url'));
        shared.set(constants.CKA_PUBLIC_EXPONENT, Buffer.from(String(jwk.e), 'base64url'));
      } else {
        shared.set(constants.CKA_EC_POINT, octetString(describeSpki(publicDer(privateKey)).keyBits));
      }
      const add = (kind: number, own: Map<number, unknown>): Handle => {
        objects.set(++next, { attributes: new Map([...shared, ...own, [constants.CKA_CLASS, kind]]), privateKey });
        return handle(next);
      };
      return {
        publicKey: add(constants.CKO_PUBLIC_KEY, publicOnes),
        privateKey: add(constants.CKO_PRIVATE_KEY, privateOnes),
      };
    }
    C_FindObjectsInit(session: Handle, template: Template): void {
      const state = sessionOf(session);
      if (state.found) fail('CKR_OPERATION_ACTIVE');
      state.found = [...objects]
        .filter(([, { attributes }]) => template.every(({ type, value }) => same(attributes.get(type), value)))
        // What is private is seen by whoever has logged in.
        .filter(([, { attributes }]) => loggedIn || attributes.get(constants.CKA_CLASS) === constants.CKO_PUBLIC_KEY)
        .map(([number]) => number);
    }
    C_FindObjects(session: Handle, most: number): Handle[] {
      return (sessionOf(session).found ?? fail('CKR_OPERATION_NOT_INITIALIZED')).splice(0, most).map(handle);
    }
    C_FindObjectsFinal(session: Handle): void {
      delete sessionOf(session).found;
    }
    C_GetAttributeValue(session: Handle, object: Handle, template: Template) {
      sessionOf(session);
      const { attributes } = itemOf(object);
      return template.map(({ type }) => ({
        type,
        value: (attributes.get(type) ?? fail('CKR_ATTRIBUTE_TYPE_INVALID')) as Buffer,
      }));
    }
    C_SignInit(session: Handle, { mechanism }: { mechanism: number }, key: Handle): void {
      const state = sessionOf(session);
      if (!loggedIn) fail('CKR_USER_NOT_LOGGED_IN');
      const item = itemOf(key);
      const isRsa = item.privateKey.asymmetricKeyType === 'rsa';
      if (mechanism !== (isRsa ? constants.CKM_SHA256_RSA_PKCS : constants.CKM_ECDSA)) fail('CKR_MECHANISM_INVALID');
      if (state.signing) fail('CKR_OPERATION_ACTIVE');
      state.signing = { mechanism, item };
    }
    async C_SignAsync(session: Handle, data: Buffer): Promise<Buffer> {
      await new Promise((resolve) => setImmediate(resolve));
      const state = sessionOf(session);
      const { item } = state.signing ?? fail('CKR_OPERATION_NOT_INITIALIZED');
      delete state.signing;
      if (item.privateKey.asymmetricKeyType === 'rsa') return sign('sha256', data, item.privateKey);
      const curve = item.privateKey.asymmetricKeyDetails?.namedCurve;
      if (data.length !== (curve === 'prime256v1' ? 32 : 48)) fail('CKR_DATA_LEN_RANGE');
      return signDigest(item.privateKey, data, '');
    }
    C_DestroyObject(session: Handle, object: Handle): void {
      sessionOf(session);
      if (!objects.delete(object.readUInt32LE())) fail('CKR_OBJECT_HANDLE_INVALID');
    }
  }

  const fake: FakeToken = {
    objects,
    logins: [],
    pin: '1234',
    label: 'mutual',
    manufacturer: 'A maker of tokens',
    package: { PKCS11, ...constants },
    pull() {
      isIn = false;
      sessions.clear();
      loggedIn = false;
      // After this its objects have other handles.
      const all = [...objects.values()];
      objects.clear();
      for (const item of all) objects.set(++next, item);
    },
    plugIn() {
      isIn = true;
    },
    get openSessions() {
      return sessions.size;
    },
  };
  return fake;
}
