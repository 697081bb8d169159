/**
 * A process of its own for signals to rain on: PATH. It takes one connection at that socket, says "ready", waits for the
 * first SIGWINCH, asks 200,000 times whether the caller is alive, says how often it was and ends.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { peerOf } from '../../src/rpc/unix-peer.ts';

const server = createServer();
server.listen(process.argv[2]);
const [socket] = await once(server, 'connection');
const peer = peerOf(socket._handle.fd);
process.on('SIGWINCH', () => {});
console.log('ready');
await once(process, 'SIGWINCH');
let alive = 0;
for (let n = 0; n < 200_000; n++) if (peer.alive()) alive++;
console.log(`${alive} of 200000`);
process.exit();
