/** SPIRE's own generated client on our Delegated Identity API: by selectors and by pid, through a renewal and a redaction. */

import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import test from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import {
  admin,
  createEntry,
  joinToken,
  startAgent,
  startServer,
  verifyJwtOffline,
  writeBundle,
} from './support/pair.ts';
import { withPlace } from './support/place.ts';
import { type Event, run } from './support/program.ts';

const alias = 'spiffe://example.org/node';
const delegate = 'spiffe://example.org/delegate';
const target = 'spiffe://example.org/target';
const selector = 'unix:uid:4242';

test("SPIRE's generated client of the Delegated Identity API gets SVIDs, their renewal, and their end", () =>
  withPlace(async (place) => {
    const server = await startServer('mutual', place, 'server', { x509Ttl: 10 });
    // Delegate and workload are told apart by their paths: both run as one user.
    const program = place.path('bin', 'delegate');
    const workload = place.path('bin', 'workload');
    copyFileSync(peerPath('peer-delegate'), program);
    copyFileSync('/bin/sleep', workload);
    await createEntry(server, delegate, alias, [`unix:path:${program}`]);
    const entry = await createEntry(server, target, alias, [selector]);
    await createEntry(server, target, alias, [`unix:path:${workload}`]);
    await createEntry(server, 'spiffe://example.org/admin', alias, [selector], '-admin');
    await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, alias),
      config: { authorizedDelegates: [delegate] },
    });
    const socket = ['-socket', place.path('agent', 'a', 'admin.sock')];
    const once = async (verb: string, ...args: string[]) => {
      const { stdout } = await run(program, [verb, ...socket, ...args]);
      return JSON.parse(stdout.trimEnd());
    };

    const running = await place.start('workload', workload, ['600']);
    const watching = await place.start('by-pid', program, ['watch', ...socket, '-pid', String(running.pid)]);
    assert.deepEqual((await watching.event('update')).ids, [target]);

    const watched = await place.start('by-selectors', program, ['watch', ...socket, '-selector', selector]);
    const first = await watched.event('update');
    assert.deepEqual(first.ids, [target]);
    const renewed = await watched.event('update', ({ serials }) => serials[0] !== first.serials[0]);
    assert.deepEqual(renewed.ids, [target]);

    const { id, token } = await once('jwt', '-selector', selector, '-audience', 'db');
    assert.equal(id, target);
    assert.equal((await verifyJwtOffline(server, token, 'db')).id, target);
    const own = ['spiffe://example.org'];
    assert.deepEqual(await once('bundles'), { event: 'bundles', x509: own, jwt: own });

    await admin(server, 'entry', 'delete', '-entryID', entry);
    await watched.event('update', ({ ids }) => ids.length === 0);
    assert.match(
      (await once('jwt', '-selector', selector, '-audience', 'db')).message,
      /PermissionDenied.*no identity issued/,
    );

    await running.stop();
    const { message } = await watching.event('error');
    assert.match(message, /NotFound.*process \d+ is gone/);

    // The same client from another path is nobody's delegate.
    const { stdout } = await run(peerPath('peer-delegate'), ['bundles', ...socket]);
    assert.match(stdout, /PermissionDenied/);
  }));

test("a delegate's streams of SVIDs and bundles go through a rotation of the authority by hand: every state verifies", () =>
  withPlace(async (place) => {
    const server = await startServer('mutual', place, 'server');
    const program = place.path('bin', 'delegate');
    copyFileSync(peerPath('peer-delegate'), program);
    await createEntry(server, delegate, alias, [`unix:path:${program}`]);
    await createEntry(server, target, alias, [selector]);
    await startAgent('mutual', place, 'agent', server, {
      bundle: await writeBundle(server),
      joinToken: await joinToken(server, alias),
      config: { authorizedDelegates: [delegate] },
    });
    const socket = ['-socket', place.path('agent', 'a', 'admin.sock')];
    const following = await place.start('follow', program, ['follow', ...socket, '-selector', selector]);
    const first = await following.event('state', ({ verified }) => verified);
    const [old] = first.authorities as string[];
    assert.deepEqual([first.ids, first.signers], [[target], [old]]);

    const step = (...words: string[]) => admin(server, 'localauthority', 'x509', ...words);
    const prepared = await step('prepare');
    const next: string = prepared.prepared_authority.authority_id;
    await following.event('state', ({ authorities }) => authorities.includes(next) && authorities.includes(old));
    await step('activate', '-authorityID', next);
    // Until an authority is tainted, what it signed stays.
    await step('taint', '-authorityID', old!);
    await following.event('state', ({ signers }) => signers[0] === next);
    await step('revoke', '-authorityID', old!);
    const isAlone = ({ authorities }: Event): boolean => authorities.length === 1 && authorities[0] === next;
    const last = await following.event('state', isAlone);
    assert.deepEqual([last.ids, last.signers, last.authorities, last.verified], [[target], [next], [next], true]);
    const states = following.events('state');
    const from = states.findIndex(({ verified }) => verified);
    assert.deepEqual(
      states.slice(from).filter(({ verified }) => !verified),
      [],
    );
    assert.deepEqual(following.events('error'), []);
  }));
