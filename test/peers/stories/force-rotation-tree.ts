/**
 * The tree of SPIRE's force-rotation-self-signed suite: a root, two servers below it and one below each of those, every
 * one with an agent and a workload. The root's authority is replaced step by step, and each step has to arrive everywhere.
 */
import assert from 'node:assert/strict';
import { authorityId, type Certificate, parseCertificate } from '../../../src/crypto/certificate.ts';
import { peerPath } from '../../../tools/peers.ts';
import { admit, type Level, startLevel, td } from '../support/levels.ts';
import { operator } from '../support/operator.ts';
import {
  type Agent,
  admin,
  createEntry,
  joinToken,
  type Make,
  startAgent,
  workload,
  writeBundle,
} from '../support/pair.ts';
import type { Place } from '../support/place.ts';
import type { Program } from '../support/program.ts';
import { fetchX509, presentedBy } from '../support/two-agents.ts';
import { until } from '../support/until.ts';
import { opensslVerifies } from './force-rotation.ts';

const patience = 90_000;

interface Named extends Level {
  readonly name: string;
}

export interface Tree {
  readonly root: Named;
  /** All five, the root first. */
  readonly levels: readonly Named[];
  /** Below the leaves, calling each other all the time. */
  readonly calling: Program;
  readonly listening: Program;
}

/** Ours at the root with agents of both makes; below, each make stands once under each. */
export async function startTree(place: Place): Promise<Tree> {
  const start = async (name: string, make: Make, above?: Named): Promise<Named> => {
    if (above) await admit(above, above.name, name, make);
    return { ...(await startLevel(place, name, make, above)), name };
  };
  const root = await start('root', 'mutual');
  const alias = `${td}/node/root-go`;
  const goAgent = await startAgent('spire', place, 'root-go-agent', root.server, {
    joinToken: await joinToken(root.server, alias),
    bundle: await writeBundle(root.server),
  });
  const rootGo = { server: root.server, agent: goAgent, name: 'root-go' };
  const [a, b] = [await start('a', 'spire', rootGo), await start('b', 'mutual', root)];
  const [leafA, leafB] = [await start('leaf-a', 'mutual', a), await start('leaf-b', 'spire', b)];
  const levels = [root, a, b, leafA, leafB];
  for (const { server, agent, name } of levels) {
    await createEntry(server, `${td}/${name}/workload`, `${td}/node/${name}`, [
      `unix:path:${peerPath('peer-workload')}`,
    ]);
    await until(`an SVID at ${name}`, patience, () => workload(agent, 'x509'));
  }
  const mtls = [leafA, leafB].map(({ name }) => `${td}/${name}/mtls`);
  for (const [index, { server, name }] of [leafA, leafB].entries())
    await createEntry(server, mtls[index]!, `${td}/node/${name}`, [`unix:path:${peerPath('peer-mtls')}`]);
  const speak = (verb: string, agent: Agent, peer: string, ...more: string[]): Promise<Program> =>
    place.start(verb, peerPath('peer-mtls'), [verb, '-socket', `unix://${agent.socket}`, '-authorize', peer, ...more]);
  const listening = await speak('server', leafA.agent, mtls[1]!);
  const { address } = await listening.event('listening', () => true, patience);
  const calling = await speak('client', leafB.agent, mtls[0]!, '-address', String(address), '-every', '100ms');
  await calling.event('echo', () => true, patience);
  return { root, levels, calling, listening };
}

interface Held {
  readonly id: string;
  readonly tainted: boolean;
  readonly certificate: Certificate;
}

async function heldBy({ server }: Named): Promise<Held[]> {
  const { x509_authorities } = await admin(server, 'bundle', 'show');
  return x509_authorities
    .map(({ asn1, tainted }: { asn1: string; tainted: boolean }) => {
      const certificate = parseCertificate(Buffer.from(asn1, 'base64'));
      return { id: authorityId(certificate), tainted, certificate };
    })
    .sort((one: Held, other: Held) => (one.id < other.id ? -1 : 1));
}

/** Every server holds what the root does, and every workload is given it. */
async function arrived(tree: Tree, what: string): Promise<readonly Held[]> {
  const wanted = await heldBy(tree.root);
  const text = (held: readonly Held[]): string => held.map(({ id, tainted }) => `${id} ${tainted}`).join();
  for (const level of tree.levels) {
    await until(
      `${what} at the server ${level.name}`,
      patience,
      async () => text(await heldBy(level)) === text(wanted),
    );
    await until(`${what} below the agent of ${level.name}`, patience, async () => {
      return (await fetchX509(level.agent)).authorities.join() === wanted.map(({ id }) => id).join();
    });
  }
  return wanted;
}

const serialsOf = async ({ server }: Named): Promise<string> => {
  const { agents } = await admin(server, 'agent', 'list');
  return agents.map((one: { x509svid_serial_number: string }) => one.x509svid_serial_number).join();
};

const activeOf = async ({ server }: Named): Promise<string | undefined> =>
  (await operator(server, 'spire').show('x509')).active?.authority_id;

/** @param make whose command line does the steps at the root */
export async function forceTreeRotation(tree: Tree, make: Make): Promise<void> {
  const { root, levels } = tree;
  const by = operator(root.server, make);
  const first = (await by.show('x509')).active!;
  const start = await arrived(tree, 'the first authority alone');
  assert.deepEqual(
    start.map(({ id, tainted }) => [id, tainted]),
    [[first.authority_id, false]],
  );
  const agents = await Promise.all(levels.map(serialsOf));
  const signers = await Promise.all(levels.map(activeOf));

  const next = await by.prepare('x509');
  assert.deepEqual((await by.show('x509')).prepared, next);
  assert.equal((await arrived(tree, 'the prepared authority')).length, 2);
  await by.step('activate', 'x509', next.authority_id);
  const { active, old } = await by.show('x509');
  assert.deepEqual([active, old], [next, first]);

  await by.step('taint', 'x509', first.authority_id);
  const tainted = await arrived(tree, 'the taint');
  assert.deepEqual(
    tainted.filter((one) => one.tainted).map(({ id }) => id),
    [first.authority_id],
  );
  const trusted = tainted.find((one) => !one.tainted)!.certificate;
  for (const [index, level] of levels.entries()) {
    const { server, agent, name } = level;
    await until(`the server ${name} presents what another authority of its own signed`, patience, async () => {
      const own = await activeOf(level);
      const shown = (await presentedBy(server.port)).authorityKeyId!.toString('hex');
      return own !== signers[index] && shown === own;
    });
    await until(`every agent of ${name} has another SVID`, patience, async () => {
      const [before, now] = [agents[index]!.split(','), (await serialsOf(level)).split(',')];
      return now.every((serial) => !before.includes(serial));
    });
    await until(`OpenSSL verifies the workload of ${name} by the new root alone`, patience, async () => {
      await opensslVerifies(server.dir, (await fetchX509(agent)).chain, trusted);
      return true;
    });
  }
  for (const program of [tree.calling, tree.listening])
    await until(`${program.name} has left the tainted root`, patience, async () => {
      const own = await activeOf(program === tree.calling ? levels[4]! : levels[3]!);
      return program.events('update').at(-1)?.issuer === own;
    });

  await by.step('revoke', 'x509', first.authority_id);
  const end = await arrived(tree, 'the new authority alone');
  assert.deepEqual(
    end.map((one) => [one.id, one.tainted]),
    [[next.authority_id, false]],
  );
  const before = tree.calling.events('echo').length;
  await until('the leaves speak', patience, () => tree.calling.events('echo').length > before + 10);
  const refused = [...tree.calling.events('refused'), ...tree.listening.events('refused')];
  assert.deepEqual(refused, [], 'no handshake failed');
}
