/** A TCP port in front of a program, which a test can shut: to be away without losing what the program holds. */
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface Gate {
  readonly port: number;
  shut(): Promise<void>;
  open(): Promise<void>;
}

/** @param port of the program on 127.0.0.1 */
export async function gateTo(port: number): Promise<Gate> {
  const sockets = new Set<Socket>();
  let server: Server;
  let own = 0;
  const gate: Gate = {
    get port() {
      return own;
    },
    async shut() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
    async open() {
      server = createServer((near) => {
        const far = connect(port, '127.0.0.1');
        for (const socket of [near, far]) {
          sockets.add(socket);
          socket.on('error', () => {});
          socket.on('close', () => {
            sockets.delete(socket);
            near.destroy();
            far.destroy();
          });
        }
        near.pipe(far).pipe(near);
      });
      await new Promise<void>((resolve) => server.listen(own, '127.0.0.1', resolve));
      own = (server.address() as { port: number }).port;
    },
  };
  await gate.open();
  return gate;
}
