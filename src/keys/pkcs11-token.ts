/**
 * A PKCS#11 token as sessions in which work is done: the login kept, sessions used again, and opened anew when the token
 * was taken away in between.
 */
import { Fault, quote } from '../errors.ts';
import { type Turns, turns } from '../run/turns.ts';
import type { Pkcs11Options } from './options.ts';
import { unreachable } from './remote-keys.ts';

export type Handle = Buffer;
export type Template = { type: number; value?: unknown }[];
/** What is used of pkcs11js. Numbers such as CKA_LABEL are members of the module. */
export interface Cryptoki {
  load(path: string): void;
  C_Initialize(options: object): void;
  C_GetInfo(): { manufacturerID: string };
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
export type Module = { PKCS11: new () => Cryptoki } & { readonly [constant: `CK${string}`]: number };

/** More sessions than this are not kept for the next one. */
const mostIdle = 8;
/** The session, the login or the handle is of before: with new ones the same call may work. */
export const stale = new Set([
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

export interface Token {
  /** Work in a session of its own, logged in. When the session turns out to be of before, once more in a new one. */
  use<T>(work: (session: Handle, cryptoki: Cryptoki) => T | Promise<T>): Promise<T>;
  /** As `use`, for work that makes or destroys keys. */
  change<T>(work: (session: Handle, cryptoki: Cryptoki) => T | Promise<T>): Promise<T>;
  close(): void | Promise<void>;
}

/**
 * SoftHSM says that threads may call it at once and is wrong (its issues 573 and 688; 2.6.1): a thread that makes a key
 * while another one reads objects ends the process, or makes either fail. So with it nothing runs beside what changes
 * keys. A library is one for the whole process, and so are its turns.
 */
const turnsAt = new Map<string, Turns>();
const allAtOnce: Turns = { shared: async (work) => work(), alone: async (work) => work() };

function turnsOf(library: string, cryptoki: Cryptoki): Turns {
  if (!cryptoki.C_GetInfo().manufacturerID.startsWith('SoftHSM')) return allAtOnce;
  const there = turnsAt.get(library) ?? turns();
  turnsAt.set(library, there);
  return there;
}

export const nameOf = (options: Pkcs11Options): string => `PKCS#11 token ${quote(options.token)}`;

/** Loads the library and makes ready to log in. Throws `config/invalid`, `keys/unavailable`. */
export function openToken(module: Module, options: Pkcs11Options, pin: string): Token {
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
  const turn = turnsOf(options.library, cryptoki);

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

  async function inSession<T>(work: (session: Handle, cryptoki: Cryptoki) => T | Promise<T>): Promise<T> {
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
  }

  return {
    use: (work) => turn.shared(() => inSession(work)),
    change: (work) => turn.alone(() => inSession(work)),
    close: () => turn.alone(reset),
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

/** `CKR_...`, or empty. */
export function codeOf(error: unknown): string {
  return /CKR_[A-Z0-9_]+/.exec(String((error as Error | undefined)?.message ?? ''))?.[0] ?? '';
}
