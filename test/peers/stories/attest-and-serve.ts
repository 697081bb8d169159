/** A node is attested, an entry is made, and a go-spiffe workload gets its identities: told for any pair of makes. */

import assert from 'node:assert/strict';
import { makeNodeIdentity } from '../support/node-identity.ts';
import { acceptJwt, acceptX509 } from '../support/our-validator.ts';
import {
  admin,
  createEntry,
  joinToken,
  type Make,
  startAgent,
  startServer,
  verifyJwtOffline,
  workload,
  writeBundle,
} from '../support/pair.ts';
import type { Place } from '../support/place.ts';
import type { Event } from '../support/program.ts';
import { until } from '../support/until.ts';

/** What was seen, in a form that two pairs share when they behave alike. */
export interface Served {
  readonly agentId: string;
  readonly attestationType: string;
  readonly agentSelectors: readonly string[];
  readonly canReattest: boolean;
  readonly reportsItsVersion: boolean;
  readonly ids: readonly string[];
  readonly hints: readonly string[];
  readonly x509Bundles: readonly string[];
  readonly jwtBundles: readonly string[];
  readonly tokenIds: readonly string[];
  readonly audience: unknown;
  readonly foreignAudience: string;
  readonly afterDelete: readonly string[];
  readonly afterRestart: readonly string[];
}

const uid = `unix:uid:${process.getuid!()}`;

/** Tells the story. Everything that must hold in any pair is asserted here; what may differ is given. */
export async function attestAndServe(
  place: Place,
  makes: { server: Make; agent: Make },
  method: 'join_token' | 'x509pop',
): Promise<Served> {
  const node = await makeNodeIdentity(place.path('node'));
  const server = await startServer(makes.server, place, 'server', { x509popCa: node.ca });
  const bundle = await writeBundle(server);
  const token = method === 'join_token' ? await joinToken(server) : undefined;
  const credentials = token ? { joinToken: token } : { x509pop: { key: node.key, certificate: node.certificate } };
  const agent = await startAgent(makes.agent, place, 'agent', server, { bundle, ...credentials });

  const { agents } = await admin(server, 'agent', 'list');
  assert.equal(agents.length, 1, 'one agent is listed');
  const [listed] = agents;
  const agentId = `spiffe://${listed.id.trust_domain}${listed.id.path}`;

  const web = await createEntry(server, 'spiffe://example.org/web', agentId, [uid]);
  await createEntry(server, 'spiffe://example.org/path', agentId, [uid, 'unix:path:/nowhere']);
  const db = await createEntry(
    server,
    'spiffe://example.org/db',
    agentId,
    [uid],
    '-hint',
    'database',
    '-dns',
    'db.test',
  );
  const both = ['spiffe://example.org/db', 'spiffe://example.org/web'];
  const idsOf = (event: Event): string[] => event.svids.map((svid: { id: string }) => svid.id).sort();
  const x509 = await until('both identities', 60_000, async () => {
    const event = await workload(agent, 'x509');
    return idsOf(event).length >= 2 ? event : undefined;
  });
  assert.deepEqual(idsOf(x509), both, 'the caller has what its selectors match and nothing else');
  await acceptX509(server, x509);

  const jwt = await workload(agent, 'jwt', ['-audience', 'first,second']);
  assert.deepEqual(idsOf(jwt), both);
  for (const { token: text } of jwt.svids as { token: string }[]) {
    await verifyJwtOffline(server, text, 'second');
    await acceptJwt(server, text, 'first');
    const valid = await workload(agent, 'validate', ['-audience', 'first', '-token', text]);
    assert.equal(valid.event, 'valid');
  }
  const [first] = jwt.svids as { token: string; audience: unknown }[];
  const refusal = await workload(agent, 'validate', ['-audience', 'third', '-token', first!.token]).then(
    () => 'accepted',
    (error: Error) => /code = (\w+)/.exec(error.message)?.[1] ?? error.message,
  );
  const bundles = await workload(agent, 'bundles');

  await admin(server, 'entry', 'delete', '-entryID', db);
  const afterDelete = await until('the deleted identity is gone', 60_000, async () => {
    const ids = idsOf(await workload(agent, 'x509'));
    return ids.length === 1 ? ids : undefined;
  });
  await agent.program().stop();
  await agent.restart();
  const afterRestart = await until('identities after a restart of the agent', 60_000, async () =>
    idsOf(await workload(agent, 'x509')),
  );
  assert.equal((await admin(server, 'agent', 'list')).agents.length, 1, 'a restart makes no second agent');
  assert.ok(web);

  return {
    agentId: agentId.replace(token ?? '\0', '<token>'),
    attestationType: listed.attestation_type,
    agentSelectors: listed.selectors.map((one: { type: string; value: string }) => `${one.type}:${one.value}`).sort(),
    canReattest: listed.can_reattest,
    reportsItsVersion: listed.agent_version === undefined || listed.agent_version !== '',
    ids: idsOf(x509),
    hints: (x509.svids as { hint: string }[]).map(({ hint }) => hint).sort(),
    x509Bundles: Object.keys(x509.bundles as object),
    jwtBundles: Object.keys(bundles.jwt as object),
    tokenIds: idsOf(jwt),
    audience: first!.audience,
    foreignAudience: refusal,
    afterDelete,
    afterRestart,
  };
}
