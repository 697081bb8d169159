import { serverTable } from '../server/config.ts';
import { command } from './command.ts';
import { sourcesFrom, tableFlags } from './config-flags.ts';
import { output, toggle } from './flags.ts';
import { jsonLine } from './json.ts';
import { block } from './table.ts';

const { config, trustDomain, dataDir, database } = tableFlags(serverTable, {});

export const serverMigrate = command({
  summary: 'Bring the database to the schema of this version',
  about:
    'A server does this by itself at start unless migrateAtStart is false. A schema only grows from one version to the next, so that servers of the version before go on meanwhile. A database is never taken to an older schema.\n\nAfter a database was restored from a backup, --new-log-id gives its log of changes a new identity: agents then take everything anew instead of going on from a position that stands for other changes now. Stop all servers first.',
  flags: {
    config: config!,
    trustDomain: trustDomain!,
    dataDir: dataDir!,
    database: database!,
    newLogId: toggle('Give the log of changes a new identity, after a restore from a backup'),
    output,
  },
  examples: [
    ['mutual server migrate --config server.yaml', 'Before the servers of a new version start'],
    ['mutual server migrate --config server.yaml --new-log-id', 'After a restore from a backup'],
  ],
  async run({ newLogId, output, ...values }, ports) {
    const { migrateDatabase } = await import('../server/main.ts');
    const done = await migrateDatabase(await sourcesFrom(values, ports), newLogId);
    if (output === 'json') {
      ports.out(jsonLine(done));
      return 0;
    }
    const schema = done.before === done.after ? `${done.after}, as it was` : `${done.after}, was ${done.before}`;
    ports.out(
      block(ports, [
        ['Schema', schema],
        ['Log', newLogId ? `${done.logId}, new` : done.logId],
        ['Position', String(done.position)],
      ]),
    );
    return 0;
  },
});
