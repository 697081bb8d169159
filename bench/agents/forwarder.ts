/**
 * A balancer of TCP connections for tests and simulations: each new connection goes to the next server that takes it. Links
 * can be cut, as a network partition cuts them.
 */
import { connect, createServer, type Socket } from 'node:net';
import type { HostPort } from '../../src/config/kinds.ts';

export interface Forwarder {
  readonly address: HostPort;
  /** Cuts every connection, or those to one server, and lets no new one through. */
  cut(server?: number): void;
  mend(server?: number): void;
  /** Connections to each server now. */
  counts(): number[];
  /** Connections ever made. */
  made(): number;
  close(): Promise<void>;
}

export async function startForwarder(servers: readonly HostPort[]): Promise<Forwarder> {
  const away = servers.map(() => false);
  const links = servers.map(() => new Set<Socket>());
  /** Every connection that came in, also one that no server has taken yet. */
  const all = new Set<Socket>();
  let turn = 0;
  let made = 0;

  const link = (from: Socket, tried: number): void => {
    if (from.destroyed) return;
    if (tried === servers.length) {
      from.destroy();
      return;
    }
    const index = turn++ % servers.length;
    if (away[index]) {
      link(from, tried + 1);
      return;
    }
    const { host, port } = servers[index]!;
    const to = connect({ host, port, noDelay: true });
    const refused = (): void => link(from, tried + 1);
    // A server that packets do not reach says nothing for minutes.
    const left = (): void => void to.destroy();
    to.once('error', refused);
    from.once('close', left);
    to.once('connect', () => {
      to.off('error', refused);
      from.off('close', left);
      if (from.destroyed || away[index]) {
        to.destroy();
        from.destroy();
        return;
      }
      const held = links[index]!;
      held.add(from);
      made += 1;
      const end = (): void => {
        held.delete(from);
        from.destroy();
        to.destroy();
      };
      for (const socket of [from, to]) socket.on('error', end).on('close', end);
      from.pipe(to).pipe(from);
    });
  };
  const listener = createServer({ noDelay: true }, (from) => {
    from.on('error', () => {});
    all.add(from);
    from.once('close', () => all.delete(from));
    link(from, 0);
  });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen({ host: '127.0.0.1', port: 0, backlog: 16_384 }, resolve);
  });
  const { port } = listener.address() as { port: number };
  const chosen = (server: number | undefined) => (server === undefined ? servers.map((_, index) => index) : [server]);
  return {
    address: { host: '127.0.0.1', port },
    cut(server) {
      for (const index of chosen(server)) {
        away[index] = true;
        for (const socket of links[index]!) socket.destroy();
      }
    },
    mend(server) {
      for (const index of chosen(server)) away[index] = false;
    },
    counts: () => links.map((held) => held.size),
    made: () => made,
    async close() {
      await new Promise<void>((resolve) => {
        listener.close(() => resolve());
        for (const socket of all) socket.destroy();
      });
    },
  };
}
