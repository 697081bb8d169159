/** The server's X.509 and JWT authorities rotate by their short lifetime while a workload holds its stream open. */

import assert from 'node:assert/strict';
import { peerPath } from '../../../tools/peers.ts';
import { createEntry, joinToken, type Make, startAgent, startServer, workload, writeBundle } from '../support/pair.ts';
import type { Place } from '../support/place.ts';
import type { Event } from '../support/program.ts';

/** Seconds that a CA lives in this story: the next is prepared at half of it and signs from five sixths on. */
export const caTtl = 72;

export interface Rotated {
  /** How many authorities signed SVIDs of the workload's stream. */
  readonly issuers: number;
  /** Updates that go-spiffe could not verify, and streams that broke. */
  readonly invalid: number;
  readonly lost: number;
  readonly agentRuns: boolean;
}

interface Update extends Event {
  readonly svids: readonly { readonly id: string; readonly issuer: string; readonly notAfter: number }[];
  readonly bundles: Readonly<Record<string, readonly string[]>>;
}

const issuersOf = (events: readonly Event[]): string[] => [
  ...new Set((events as Update[]).flatMap((event) => event.svids.map((svid) => svid.issuer))),
];

export async function rotateAuthority(place: Place, makes: { server: Make; agent: Make }): Promise<Rotated> {
  const server = await startServer(makes.server, place, 'server', { caTtl, x509Ttl: 24, jwtTtl: 20, agentTtl: 24 });
  const alias = 'spiffe://example.org/node';
  await createEntry(server, 'spiffe://example.org/web', alias, [`unix:uid:${process.getuid!()}`]);
  const agent = await startAgent(makes.agent, place, 'agent', server, {
    bundle: await writeBundle(server),
    joinToken: await joinToken(server, alias),
  });
  const watch = await place.start('watch', peerPath('peer-workload'), ['watch', '-socket', `unix://${agent.socket}`]);
  const firstUpdate = (await watch.event('update', () => true, 60_000)) as Update;
  const lostBefore = watch.events('lost').length; // it may have asked before the agent had the entry
  const [firstIssuer] = issuersOf([firstUpdate]);
  const early = await workload(agent, 'jwt', ['-audience', 'rotation']);

  // An authority is in everyone's bundle before it signs, or a peer would be refused for a moment.
  const changed = (event: Event) => issuersOf([event]).some((issuer) => issuer !== firstIssuer);
  await watch.event('update', changed, caTtl * 1000 + 60_000);
  const updates = watch.events('update') as Update[];
  const signedAt = updates.findIndex(changed);
  const [next] = issuersOf([updates[signedAt]!]).filter((issuer) => issuer !== firstIssuer);
  const known = updates.findIndex((update) => update.bundles['example.org']?.includes(next!));
  assert.ok(known >= 0 && known < signedAt, 'the new authority is in the stream before an SVID it signed');

  const late = await workload(agent, 'jwt', ['-audience', 'rotation']);
  assert.equal((late.svids as unknown[]).length, 1);
  assert.equal((early.svids as unknown[]).length, 1);
  return {
    issuers: issuersOf(watch.events('update')).length,
    invalid: watch.events('invalid').length,
    lost: watch.events('lost').length - lostBefore,
    agentRuns: agent.program().ending() === undefined,
  };
}
