/**
 * A program to be killed: writes to the database at argv[2] as fast as it can, several at once, and prints a line for each
 * write that was acknowledged. argv[3] begins the ids it uses.
 */
import { openStore } from '../../../server/store/open.ts';
import { draft } from '../../suites/store.ts';

const [path, prefix] = process.argv.slice(2) as [string, string];
const say = (line: string): void => void process.stdout.write(`${line}\n`);

say('starting');
const store = await openStore({ url: `sqlite:${path}` });

async function writeOn(lane: number): Promise<never> {
  for (let n = 0; ; n += 1) {
    const id = `${prefix}-${lane}-${n}`;
    await store.entries.create([{ draft: draft(`/${id}`), stamp: { id, now: n } }]);
    say(`created ${id}`);
    for (let revision = 1; revision <= n % 3; revision += 1) {
      await store.entries.update([{ id, patch: { hint: `${revision}` } }]);
      say(`updated ${id} ${revision}`);
    }
    if (n % 4 === 3) {
      await store.entries.delete([id]);
      say(`deleted ${id}`);
    }
  }
}

await Promise.all(Array.from({ length: 8 }, (_, lane) => writeOn(lane)));
