/** `logger get`, `set` and `reset`, for the server and the agent. */
import type { Message } from './caller.ts';
import { command } from './command.ts';
import { callEither, eitherFlags } from './either-program.ts';
import { choice, required } from './flags.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { block } from './table.ts';

const services = { server: 'spire.api.server.logger.v1.Logger', agent: 'spire.api.agent.logger.v1.Logger' };

function print(logger: Message, format: 'pretty' | 'json', ports: Ports): number {
  const level = (name: string): string => name.toLowerCase();
  ports.out(
    format === 'json'
      ? jsonLine(logger)
      : block(ports, [
          ['Level', level(logger.current_level)],
          ['Level at start', level(logger.launch_level)],
        ]),
  );
  return 0;
}

export const loggerGet = command({
  summary: 'Show the log level',
  flags: eitherFlags,
  run: async (values, ports) => print(await callEither(values, services, 'GetLogger', {}, ports), values.output, ports),
});

export const loggerSet = command({
  summary: 'Set the log level until the next start',
  flags: {
    level: required(
      choice(
        'LEVEL',
        ['panic', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'],
        'The least severe events that are logged',
      ),
    ),
    ...eitherFlags,
  },
  run: async (values, ports) =>
    print(
      await callEither(values, services, 'SetLogLevel', { new_level: values.level.toUpperCase() }, ports),
      values.output,
      ports,
    ),
});

export const loggerReset = command({
  summary: 'Set the log level back to what it was at start',
  flags: eitherFlags,
  run: async (values, ports) =>
    print(await callEither(values, services, 'ResetLogLevel', {}, ports), values.output, ports),
});
