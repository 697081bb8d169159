/**
 * A stand-in for systemd's manager on any message bus, with its real interface: GetUnitByPID, and the properties Id and
 * FragmentPath of units. The bus is dbus-native's own here, and the real dbus-daemon in test/peers/containers.test.ts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import dbus from 'dbus-native';

export interface FakeSystemd {
  /** By pid. */
  readonly units: Map<number, { id: string; fragmentPath: string }>;
  asked: number;
  mood: 'well' | 'silent' | 'failing' | 'strange';
  close(): void;
}

class Refusal extends Error {
  readonly dbusName: string;
  constructor(dbusName: string, message: string) {
    super(message);
    this.dbusName = dbusName;
  }
}

const systemd = 'org.freedesktop.systemd1';

/** Joins a bus under systemd's name. */
export async function fakeSystemd(socketPath: string): Promise<FakeSystemd> {
  const bus = dbus.createClient({ socket: socketPath, authMethods: ['EXTERNAL'] });
  bus.connection.on('error', () => {});
  const inMood = <T>(answer: () => T): T | Promise<T> => {
    if (manager.mood === 'silent') return new Promise<T>(() => {});
    if (manager.mood === 'failing') throw new Refusal('org.freedesktop.DBus.Error.Failed', 'it is broken');
    return answer();
  };
  const unitByPid = (pid: number): string | Promise<string> => {
    manager.asked += 1;
    return inMood(() => {
      const unit = manager.units.get(pid);
      if (unit === undefined)
        throw new Refusal(`${systemd}.NoUnitForPID`, `PID ${pid} does not belong to any loaded unit.`);
      // systemd's escaping: everything but letters and digits is _ and two hex digits.
      const name = unit.id.replace(/[^A-Za-z0-9]/g, (one) => `_${one.charCodeAt(0).toString(16).padStart(2, '0')}`);
      const path = `/org/freedesktop/systemd1/unit/${name}`;
      const isStrange = manager.mood === 'strange';
      bus.exportInterface(
        isStrange ? { Id: 7, FragmentPath: 7 } : { Id: unit.id, FragmentPath: unit.fragmentPath },
        path,
        {
          name: `${systemd}.Unit`,
          methods: {},
          properties: { Id: isStrange ? 'u' : 's', FragmentPath: isStrange ? 'u' : 's' },
        },
      );
      return path;
    });
  };
  const manager: FakeSystemd = {
    units: new Map(),
    asked: 0,
    mood: 'well',
    close: () => void bus.connection.end(),
  };
  bus.setMethodCallHandler('/org/freedesktop/systemd1', `${systemd}.Manager`, 'GetUnitByPID', [unitByPid, 'o']);
  await bus.requestName(systemd, 0);
  return manager;
}

/** A bus of dbus-native's. */
export async function fakeBus(): Promise<{ socketPath: string; clients(): number; close(): Promise<void> }> {
  const directory = mkdtempSync(join(tmpdir(), 'mu-bus-'));
  const socketPath = join(directory, 'bus.sock');
  const broker = dbus.createBroker();
  await new Promise<void>((resolve, reject) =>
    broker.listen({ socket: socketPath }, (error) => (error ? reject(error) : resolve())),
  );
  return {
    socketPath,
    // Beside the bus itself and systemd.
    clients: () => broker.names().filter((name) => name.startsWith(':')).length - 1,
    async close() {
      await new Promise<void>((resolve) => broker.close(() => resolve()));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
