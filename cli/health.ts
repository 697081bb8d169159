import { stat } from 'node:fs/promises';
import { Fault } from '../src/errors.ts';
import { type Message, withCaller } from './caller.ts';
import { command } from './command.ts';
import { output, seconds, text, toggle, withDefault, workloadSocket } from './flags.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { type Choice, chooseSocket, serverAdmin, workloadApi } from './socket-choice.ts';

export const health = command({
  summary: 'Ask the server or the agent whether it is well',
  about:
    'With --admin-socket (or MUTUAL_ADMIN_SOCKET) the server is asked, with --socket (or SPIFFE_ENDPOINT_SOCKET) the agent; without any of them, those whose sockets are at their default places. Exit code 0 only when all that were asked are well.',
  flags: {
    adminSocket: text('PATH', "The server's admin socket", { env: 'MUTUAL_ADMIN_SOCKET', also: ['socketpath'] }),
    socket: { ...workloadSocket, also: [] },
    shallow: toggle('Has no effect; taken for scripts written for SPIRE'),
    verbose: toggle('Also say which socket was asked'),
    timeout: withDefault(seconds('How long to wait for an answer'), 5),
    output,
  },
  async run(values, ports) {
    const asked = await whomToAsk(values, ports);
    const answers: Record<string, Message> = {};
    let exit = 0;
    for (const [choice, given] of asked) {
      const { who } = choice;
      const socket = await chooseSocket(choice, given, ports);
      if (values.verbose) ports.err(`Asking the ${who} on ${socket.path} (${socket.chosen})\n`);
      const status = await statusOf(choice, given, values.timeout, ports, asked.length > 1);
      answers[who] = { status, socket: socket.path };
      if (status !== 'SERVING') exit = 1;
      if (values.output === 'pretty') {
        if (status === 'SERVING') ports.out(`The ${who} is healthy.\n`);
        else ports.err(`error: the ${who} is not healthy: ${status}\n`);
      }
    }
    if (values.output === 'json') ports.out(jsonLine(answers));
    return exit;
  },
});

async function whomToAsk(
  values: { adminSocket: string | undefined; socket: string | undefined },
  ports: Ports,
): Promise<[Choice, string | undefined][]> {
  const named: [Choice, string | undefined][] = [
    [serverAdmin, values.adminSocket],
    [workloadApi, values.socket],
  ];
  const byFlag = named.filter(([, given]) => given !== undefined);
  if (byFlag.length > 0) return byFlag;
  const byVariable = named.filter(([choice]) => ports.env[choice.env]);
  if (byVariable.length > 0) return byVariable;
  const there: typeof named = [];
  for (const each of named) {
    const { path } = await chooseSocket(each[0], undefined, ports);
    if (
      await stat(path).then(
        (found) => found.isSocket(),
        () => false,
      )
    )
      there.push(each);
  }
  return there.length > 0 ? there : named.slice(0, 1);
}

async function statusOf(
  choice: Choice,
  given: string | undefined,
  seconds: number,
  ports: Ports,
  carryOn: boolean,
): Promise<string> {
  try {
    const answer = await withCaller(choice, given, ports, (caller) =>
      caller.call('grpc.health.v1.Health', 'Check', { service: '' }, { deadlineMs: seconds * 1000 }),
    );
    return answer.status;
  } catch (error) {
    if (carryOn && error instanceof Fault) return error.message;
    throw error;
  }
}
