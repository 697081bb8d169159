/**
 * Three servers below each other, each of either make with an agent of its own make, and a workload below the middle and
 * below the leaf which authenticate each other all the time, both ways, while the root is replaced by hand.
 */
import { peerPath } from '../../../tools/peers.ts';
import { admit, type Level, spread, startLevel, td } from '../support/levels.ts';
import { admin, createEntry, type Make, verifyJwtOffline, workload } from '../support/pair.ts';
import { freePort, type Place } from '../support/place.ts';
import type { Program } from '../support/program.ts';
import { until } from '../support/until.ts';

export interface RootRotated {
  /** Handshakes that worked, from the leaf to the middle and back. */
  readonly handshakes: readonly [number, number];
  /** What any of the four programs said that was refused. */
  readonly refused: readonly string[];
  /** Authorities that signed for each workload. */
  readonly issuers: readonly [number, number];
  /** The number of roots that each server holds at the end, and how many of them are the new one. */
  readonly roots: readonly (readonly [held: number, isNew: number])[];
  /** Whether a token of the leaf's verifies by the bundle of the root, before and after. */
  readonly tokens: readonly [boolean, boolean];
}

/** Seconds: SVIDs are renewed under the workloads as well. */
/** SPIRE's server takes no keys of WIT authorities: that keeps none of ours from running below it. */
const short = { x509Ttl: 60, agentTtl: 120, config: { witSvids: { enabled: true } } };

export async function rotateRoot(
  place: Place,
  makes: readonly [root: Make, middle: Make, leaf: Make],
): Promise<RootRotated> {
  const root = await startLevel(place, 'root', makes[0], undefined, short);
  await admit(root, 'root', 'middle', makes[1]);
  const middle = await startLevel(place, 'middle', makes[1], root, short);
  await admit(middle, 'middle', 'leaf', makes[2]);
  const leaf = await startLevel(place, 'leaf', makes[2], middle, short);
  const levels = [root, middle, leaf];

  const ids = [`${td}/on-middle`, `${td}/on-leaf`] as const;
  for (const [index, name] of (['middle', 'leaf'] as const).entries()) {
    const { server } = levels[index + 1]!;
    await createEntry(server, ids[index]!, `${td}/node/${name}`, [`unix:path:${peerPath('peer-mtls')}`]);
  }
  await createEntry(leaf.server, `${td}/token`, `${td}/node/leaf`, [`unix:path:${peerPath('peer-workload')}`]);

  const token = async (): Promise<boolean> => {
    const { svids } = await until('the leaf gives a token', spread, () =>
      workload(leaf.agent, 'jwt', ['-audience', 'the-root']),
    );
    const [{ token: text }] = svids as [{ token: string }];
    return (await verifyJwtOffline(root.server, text, 'the-root')).event !== 'error';
  };
  const firstToken = await token();

  const programs: Program[] = [];
  const start = async (verb: string, own: 0 | 1, ...more: string[]): Promise<Program> => {
    const { agent } = levels[own + 1]!;
    const args = [verb, '-socket', `unix://${agent.socket}`, '-authorize', ids[own === 0 ? 1 : 0], ...more];
    const program = await place.start(`${verb}-${own}`, peerPath('peer-mtls'), args);
    programs.push(program);
    return program;
  };
  const client = async (own: 0 | 1): Promise<Program> => {
    const address = `127.0.0.1:${await freePort()}`;
    const server = await start('server', own === 0 ? 1 : 0, '-address', address);
    await server.event('listening');
    const program = await start('client', own, '-address', address, '-every', '100ms');
    await program.event('echo');
    return program;
  };
  const clients = [await client(1), await client(0)] as const;

  const rootIds = async ({ server }: Level): Promise<string[]> => {
    const { x509_authorities: held } = await admin(server, 'bundle', 'show');
    return held.map(({ asn1 }: { asn1: string }) => asn1);
  };
  const authority = async ({ server }: Level, ...verb: string[]) => admin(server, 'localauthority', 'x509', ...verb);
  const activeOf = async (level: Level) => (await authority(level, 'show')).active;
  const issuersOf = (program: Program): string[] => [
    ...new Set(program.events('update').map(({ issuer }) => String(issuer))),
  ];

  // As an operator does it: prepare, wait until everybody knows the new root, activate, taint, wait until nobody hangs on
  // the old one, revoke.
  const [{ authority_id: old }, ...below] = await Promise.all(levels.map(activeOf));
  const oldRoots = await rootIds(root);
  const { prepared_authority: next } = await authority(root, 'prepare');
  await until('all servers know the new root', spread, async () => {
    const held = await Promise.all(levels.map(rootIds));
    return held.every((roots) => roots.length === 2);
  });
  await Promise.all(clients.map((one) => one.event('update', ({ authorities }) => authorities === 2, spread)));
  await authority(root, 'activate', '-authorityID', next.authority_id);
  await authority(root, 'taint', '-authorityID', old);
  for (const [index, level] of [middle, leaf].entries()) {
    const active = await until(`server ${index + 1} has left the old root`, spread, async () => {
      const found = await activeOf(level);
      return found.authority_id !== below[index].authority_id && found;
    });
    const own = clients[index === 0 ? 1 : 0]!;
    await own.event('update', ({ issuer }) => issuer === active.authority_id, spread);
  }
  await authority(root, 'revoke', '-authorityID', old);
  const newRoots = (await rootIds(root)).filter((one) => !oldRoots.includes(one));
  await until('all servers have only the new root', spread, async () => {
    const held = await Promise.all(levels.map(rootIds));
    return held.every((roots) => roots.length === 1);
  });
  for (const one of clients) {
    await until(`${one.name} trusts only the new root`, spread, () => one.events('update').at(-1)?.authorities === 1);
    const before = one.events('echo').length;
    await until(`${one.name} goes on`, spread, () => one.events('echo').length > before + 20);
  }

  return {
    handshakes: [clients[0].events('echo').length, clients[1].events('echo').length],
    refused: programs.flatMap((one) => one.events('refused').map(({ message }) => `${one.name}: ${message}`)),
    issuers: [issuersOf(clients[0]).length, issuersOf(clients[1]).length],
    roots: (await Promise.all(levels.map(rootIds))).map((held) => [
      held.length,
      held.filter((one) => newRoots.includes(one)).length,
    ]),
    tokens: [firstToken, await token()],
  };
}
