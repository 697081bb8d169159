/**
 * One question to systemd over D-Bus, on a connection of its own that is closed with the answer. The only importer of
 * dbus-native, which is loaded with the first question.
 */
import { connect } from 'node:net';
import { Fault, quote } from '../../src/errors.ts';

export interface Unit {
  /** Such as `nginx.service`. */
  readonly id: string;
  /** The file it was read from; empty for a unit made at run time. */
  readonly fragmentPath: string;
}

type Bus = typeof import('dbus-native');
export type LoadBus = () => Promise<Bus>;

export const loadBus: LoadBus = async () => {
  const loaded = await import('dbus-native');
  return (loaded as { default?: Bus }).default ?? loaded;
};

const systemd = 'org.freedesktop.systemd1';
const properties = 'org.freedesktop.DBus.Properties';

/**
 * The unit of a process; undefined when it is in none. Throws `peer/unavailable` when the bus cannot be reached and
 * `peer/failed` when systemd answers something else; rejects with the signal's reason when it is aborted.
 */
export async function askUnit(
  bus: Bus,
  socketPath: string,
  pid: number,
  signal: AbortSignal,
): Promise<Unit | undefined> {
  signal.throwIfAborted();
  const stream = connect(socketPath);
  const { promise: broken, reject } = Promise.withResolvers<never>();
  broken.catch(() => {});
  const onAbort = (): void => reject(signal.reason);
  const unreachable = (error: Error): void =>
    reject(
      new Fault('peer/unavailable', `the system bus at ${quote(socketPath)} cannot be reached: ${error.message}`, {
        cause: error,
      }),
    );
  signal.addEventListener('abort', onAbort, { once: true });
  stream.on('error', unreachable);
  stream.once('close', () => unreachable(new Error('it closed the connection')));
  try {
    const client = bus.createClient({ stream, authMethods: ['EXTERNAL'], timeout: 0 });
    client.connection.on('error', unreachable);
    const ask = (path: string, face: string, member: string, signature: string, body: unknown[]): Promise<unknown> => {
      const asked = client.invoke({ destination: systemd, path, interface: face, member, signature, body });
      return Promise.race([asked, broken]);
    };
    const path = await ask('/org/freedesktop/systemd1', `${systemd}.Manager`, 'GetUnitByPID', 'u', [pid]);
    const read = async (name: string): Promise<string> => {
      const value = await ask(String(path), properties, 'Get', 'ss', [`${systemd}.Unit`, name]);
      if (typeof value === 'string') return value;
      throw new Fault('peer/failed', `systemd gives a unit's ${name} as something else than a text`);
    };
    return { id: await read('Id'), fragmentPath: await read('FragmentPath') };
  } catch (error) {
    if (error instanceof Fault || error === signal.reason) throw error;
    const { name = '', dbusName = '', message } = error as Error & { dbusName?: string };
    if (`${name} ${dbusName}`.includes(`${systemd}.NoUnitForPID`)) return undefined;
    throw new Fault('peer/failed', `systemd does not tell the unit of a process: ${message}`, { cause: error });
  } finally {
    signal.removeEventListener('abort', onAbort);
    stream.destroy();
  }
}
