/** `server reseal` and `agent reseal`: the same command for the keys of both programs. */
import type { Sources } from '../src/config/read.ts';
import type { Table } from '../src/config.ts';
import type { ResealedThing } from '../src/keys/reseal.ts';
import { command } from './command.ts';
import { sourcesFrom, tableFlags } from './config-flags.ts';
import { output } from './flags.ts';
import { jsonLine } from './json.ts';
import { table } from './table.ts';

export function resealCommand(
  program: 'server' | 'agent',
  options: Table,
  more: string,
  load: () => Promise<(sources: Sources) => Promise<readonly ResealedThing[]>>,
) {
  const flags = tableFlags(options, {});
  const { config, dataDir, trustDomain, adminSocket } = flags;
  return command({
    summary: `Change the passphrase that seals the keys of ${program === 'server' ? 'a server' : 'an agent'}`,
    about: `From keys.seal.passphraseFile to keys.seal.nextPassphraseFile, with the ${program} stopped. What is sealed by the next one already is left alone: after a crash the same command finishes it. ${more}Then give the new file as keys.seal.passphraseFile, take nextPassphraseFile away, and start.`,
    flags: {
      config: config!,
      trustDomain: trustDomain!,
      dataDir: dataDir!,
      adminSocket: adminSocket!,
      ...(flags.database && { database: flags.database }),
      keysSealPassphraseFile: flags.keysSealPassphraseFile!,
      keysSealNextPassphraseFile: flags.keysSealNextPassphraseFile!,
      output,
    },
    examples: [
      [
        `mutual ${program} reseal --config ${program}.yaml --keys-seal-next-passphrase-file /etc/mutual/next-passphrase`,
        'From the passphrase of the file to another',
      ],
    ],
    async run({ output, ...values }, ports) {
      const reseal = await load();
      const done = await reseal(await sourcesFrom(values, ports));
      if (output === 'json') {
        ports.out(jsonLine({ sealed: done }));
        return 0;
      }
      ports.out(
        table(
          ports,
          ['WHAT', 'NOW'],
          done.map(({ name, result }) => [name, result]),
        ),
      );
      return 0;
    },
  });
}
