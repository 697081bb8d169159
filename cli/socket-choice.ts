/** Which socket a command talks to, and what to say when nobody answers there. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Fault, quote } from '../src/errors.ts';
import type { Ports } from './ports.ts';

export interface Socket {
  readonly path: string;
  /** How it was chosen, to end a sentence: `given by --admin-socket`. */
  readonly chosen: string;
  /** Whom one expects there: `server`, `agent`. */
  readonly who: 'server' | 'agent';
  /** The flag that would choose another. */
  readonly flag: string;
}

export interface Choice {
  readonly who: 'server' | 'agent';
  readonly flag: string;
  readonly env: string;
  /** Where the program puts it when nobody says otherwise, from the working directory. */
  readonly fallback: string;
}

export const serverAdmin: Choice = {
  who: 'server',
  flag: '--admin-socket',
  env: 'MUTUAL_ADMIN_SOCKET',
  fallback: '.mutual/server/private/api.sock',
};
export const agentAdmin: Choice = {
  who: 'agent',
  flag: '--admin-socket',
  env: 'MUTUAL_AGENT_ADMIN_SOCKET',
  fallback: '.mutual/agent/private/admin.sock',
};
export const workloadApi: Choice = {
  who: 'agent',
  flag: '--socket',
  env: 'SPIFFE_ENDPOINT_SOCKET',
  fallback: '.mutual/agent/public/api.sock',
};

/** The flag's value, else the variable's, else the default. Throws `usage/invalid` for an address that is no Unix socket. */
export async function chooseSocket(choice: Choice, given: string | undefined, ports: Ports): Promise<Socket> {
  const { who, flag } = choice;
  const found = (path: string, chosen: string): Socket => ({ path, chosen, who, flag });
  if (given !== undefined) return found(socketPath(given, flag, ports), `given by ${flag}`);
  const set = ports.env[choice.env];
  if (set !== undefined && set !== '') return found(socketPath(set, choice.env, ports), `given by ${choice.env}`);
  return found(resolve(ports.directory, choice.fallback), `the default: neither ${flag} nor ${choice.env} is set`);
}

/** Reads a path, or `unix:` address (SPIFFE Workload Endpoint §4: absolute path, nothing else in it). */
export function socketPath(given: string, source: string, ports: Ports): string {
  const refuse = (why: string): Fault =>
    new Fault('usage/invalid', `socket ${quote(given)} (${source}) is not valid: ${why}`, {
      hint: 'Give a path, or an address such as unix:///run/mutual/agent/public/api.sock.',
    });
  if (given === '') throw refuse('it is empty');
  if (given.startsWith('tcp:')) throw refuse('TCP endpoints are not supported here');
  if (!/^[A-Za-z][A-Za-z0-9+.-]*:/.test(given)) return resolve(ports.directory, given);
  if (!given.startsWith('unix:')) throw refuse('its scheme is not unix');
  const rest = given.slice('unix:'.length);
  const path = rest.startsWith('//') ? rest.slice(2) : rest;
  if (!path.startsWith('/'))
    throw refuse(rest.startsWith('//') ? 'it has a host where the path should begin' : 'its path is not absolute');
  if (/[?#]/.test(path)) throw refuse('it has a query or a fragment');
  return path;
}

/** Why nobody answers on a socket, in words, and what to do. */
export async function nobodyAnswers(socket: Socket, cause: Error): Promise<Fault> {
  const name = `${quote(socket.path)} (${socket.chosen})`;
  const start = socket.who === 'server' ? '"mutual server run" or "mutual up"' : '"mutual agent run" or "mutual up"';
  const refuse = (why: string, hint: string): Fault =>
    new Fault('peer/unavailable', `no ${socket.who} answers on socket ${name}: ${why}`, { hint, cause });
  let isSocket: boolean;
  try {
    isSocket = (await stat(socket.path)).isSocket();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EACCES')
      return refuse('permission denied', `Run as a user who may open it, or name another with ${socket.flag} PATH.`);
    return refuse('there is no such file', `Start it with ${start}, or name its socket with ${socket.flag} PATH.`);
  }
  if (!isSocket) return refuse('it is not a socket', `Name the right one with ${socket.flag} PATH.`);
  if (/EACCES/.test(cause.message))
    return refuse('permission denied', `Run as a user who may open it, or name another with ${socket.flag} PATH.`);
  if (/ECONNREFUSED/.test(cause.message)) {
    return refuse(
      'nobody listens there any more',
      `Start it with ${start}, or name another socket with ${socket.flag} PATH.`,
    );
  }
  return refuse(cause.message, `See the log of the ${socket.who}, or name another socket with ${socket.flag} PATH.`);
}
