import { release } from 'node:os';
import { incubating, version as number } from '../src/version.ts';
import { command } from './command.ts';
import { output, toggle } from './flags.ts';
import { jsonLine } from './json.ts';

export const version = command({
  summary: 'Print the version',
  flags: { features: toggle('Also print what this build and machine can do'), output },
  async run(values, ports) {
    const found = values.features ? await features(ports.versions) : undefined;
    if (values.output === 'json') ports.out(jsonLine({ version: number, ...(found && { features: found }) }));
    else {
      ports.out(`mutual ${number}\n`);
      for (const [name, value] of Object.entries(found ?? {}))
        ports.out(`${name.padEnd(24)} ${value === true ? 'yes' : value === false ? 'no' : value}\n`);
    }
    return 0;
  },
});

/** What only some runtimes and kernels have. */
async function features(
  versions: Readonly<Record<string, string | undefined>>,
): Promise<Record<string, string | boolean>> {
  // Loaded here: the plain version has to come at once.
  const { createSecureContext } = await import('node:tls');
  const hasGroup = (name: string): boolean => {
    try {
      createSecureContext({ ecdhCurve: name });
      return true;
    } catch {
      return false;
    }
  };
  const [major = 0, minor = 0] = release().split('.').map(Number);
  return {
    node: versions.node ?? 'unknown',
    openssl: versions.openssl ?? 'unknown',
    sqlite: versions.sqlite ?? 'unknown',
    kernel: release(),
    peer_pidfd: major > 6 || (major === 6 && minor >= 5),
    tls_x25519mlkem768: hasGroup('X25519MLKEM768'),
    tls_secp256r1mlkem768: hasGroup('SecP256r1MLKEM768'),
    tls_secp384r1mlkem1024: hasGroup('SecP384r1MLKEM1024'),
    ...incubating,
    mldsa: Number.parseInt(versions.openssl ?? '0', 10) > 3 || /^3\.([5-9]|\d\d)/.test(versions.openssl ?? ''),
  };
}
