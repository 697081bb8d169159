/** spire.api.agent.logger.v1.Logger, on the admin socket: the log's level, while the agent runs. */
import { Fault, quote } from '../../src/errors.ts';
import { type LogLevel, logLevels, type RootLog } from '../../src/log.ts';
import type { Service } from '../../src/rpc/serve.ts';

/** Undefined when the program was given a log whose level is not its own to change. */
export function loggerApi(log: RootLog | undefined): Service {
  const root = (): RootLog => {
    if (log !== undefined) return log;
    throw new Fault('state/refused', 'the level of this log cannot be changed');
  };
  const levels = () => ({ current_level: root().level.toUpperCase(), launch_level: root().launchLevel.toUpperCase() });
  return {
    name: 'spire.api.agent.logger.v1.Logger',
    methods: {
      GetLogger: levels,
      SetLogLevel({ new_level }: { new_level: string }) {
        const level = String(new_level).toLowerCase() as LogLevel;
        if (!logLevels.includes(level)) {
          throw new Fault('input/invalid', `log level ${quote(new_level)} is not valid`, {
            hint: `Use one of ${logLevels.join(', ')}.`,
          });
        }
        root().setLevel(level);
        return levels();
      },
      ResetLogLevel() {
        root().setLevel();
        return levels();
      },
    },
  };
}
