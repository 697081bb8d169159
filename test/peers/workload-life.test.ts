/**
 * What the life of a node brings to a workload that keeps its stream open, through the clients that others wrote: a second
 * identity with a hint, a federated bundle that comes and goes, an identity taken away, and a restart of the agent.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { admin, createEntry, joinToken, startAgent, startServer, writeBundle } from './support/pair.ts';
import { type Place, withPlace } from './support/place.ts';
import type { Event, Program } from './support/program.ts';
import { spireCli } from './support/spire.ts';
import { until } from './support/until.ts';

const alias = 'spiffe://example.org/node';
const one = 'spiffe://example.org/one';
const two = 'spiffe://example.org/two';
const who = [`unix:uid:${process.getuid!()}`];

/** Each reports `update` with svids (id, hint) and bundles by trust domain, and `lost` with why a stream ended. */
const clients: Readonly<Record<string, (place: Place, socket: string) => Promise<Program>>> = {
  'go-spiffe': (place, socket) => place.start('go', peerPath('peer-workload'), ['watch', '-socket', socket]),
  'py-spiffe': (place, socket) =>
    place.start('python', peerPath('py-spiffe'), [join(import.meta.dirname, 'py', 'watch.py'), socket]),
  'java-spiffe': (place, socket) => {
    const jars = join(peerPath('java-spiffe'), '*');
    return place.start('java', 'java', ['-cp', jars, join(import.meta.dirname, 'java', 'Watch.java'), socket]);
  },
};

const idsOf = (event: Event): string[] => (event.svids as { id: string }[]).map(({ id }) => id).sort();
/** py-spiffe does not tell hints: null. */
const hintsOf = (event: Event): (string | null)[] => (event.svids as { hint: string | null }[]).map(({ hint }) => hint);
const domainsOf = (event: Event): string[] => Object.keys(event.bundles as object).sort();

for (const [name, start] of Object.entries(clients)) {
  test(`WA-25 ${name} follows hints, federation, redaction and a restart of our agent`, () =>
    withPlace(async (place) => {
      const server = await startServer('mutual', place, 'server');
      const friend = await startServer('mutual', place, 'friend', { trustDomain: 'friend.test' });
      const first = await createEntry(server, one, alias, who, '-hint', 'internal');
      const agent = await startAgent('mutual', place, 'agent', server, {
        bundle: await writeBundle(server),
        joinToken: await joinToken(server, alias),
      });
      const watching = await start(place, `unix://${agent.socket}`);
      let seen = 0;
      /** The first update after the one found before that passes. */
      const update = async (what: string, test: (event: Event) => boolean): Promise<Event> => {
        const fresh = () => watching.events('update').slice(seen);
        await until(`${name}: ${what}`, 60_000, () => fresh().some(test), 50).catch((error: Error) => {
          throw new Error(`${error.message}\n${watching.output().slice(-4000)}`);
        });
        assert.deepEqual(watching.events('invalid'), []);
        const at = fresh().findIndex(test);
        const found = fresh()[at]!;
        seen += at + 1;
        return found;
      };

      const begun = await update('the first identity', (event) => idsOf(event).includes(one));
      assert.deepEqual([idsOf(begun), domainsOf(begun)], [[one], ['example.org']]);

      await createEntry(server, two, alias, who, '-hint', 'external');
      const both = await update('the second identity', (event) => idsOf(event).includes(two));
      assert.deepEqual(idsOf(both), [one, two]);
      // Oldest first: the first is the default identity.
      assert.deepEqual(hintsOf(both), name === 'py-spiffe' ? [null, null] : ['internal', 'external']);

      const bundle = join(server.dir, 'friend.json');
      writeFileSync(bundle, (await spireCli(friend.adminSocket, ['bundle', 'show', '-format', 'spiffe'])).stdout);
      await admin(server, 'bundle', 'set', '-id', 'spiffe://friend.test', '-format', 'spiffe', '-path', bundle);
      const three = 'spiffe://example.org/three';
      const federated = await createEntry(server, three, alias, who, '-federatesWith', 'spiffe://friend.test');
      await update('the bundle of a friend', (event) => domainsOf(event).includes('friend.test'));
      await admin(server, 'entry', 'delete', '-entryID', federated);
      await update('the end of that bundle', (event) => !domainsOf(event).includes('friend.test'));

      seen = watching.events('update').length;
      await agent.program().stop();
      await agent.restart();
      await update('an update after the restart', (event) => idsOf(event).length === 2);

      await admin(server, 'entry', 'delete', '-entryID', first);
      const left = await update('the redaction', (event) => !idsOf(event).includes(one));
      assert.deepEqual(idsOf(left), [two]);
    }));
}
