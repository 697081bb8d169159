/** spire.api.server.logger.v1.Logger: the level of this program's log, while it runs. */
import { Fault } from '../../src/errors.ts';
import type { LogLevel, RootLog } from '../../src/log.ts';
import type { Service } from '../../src/rpc/serve.ts';

export function loggerService(log: RootLog): Service {
  const state = () => ({ current_level: log.level.toUpperCase(), launch_level: log.launchLevel.toUpperCase() });
  const methods = {
    GetLogger: state,
    SetLogLevel({ new_level }: { new_level: string | number }) {
      // An enum value that the contract does not know arrives as its number.
      if (typeof new_level === 'number') throw new Fault('input/invalid', `log level ${new_level} is not known`);
      if (new_level === 'UNSPECIFIED') {
        throw new Fault('input/invalid', 'newLevel value cannot be LogLevel_UNSPECIFIED', {
          hint: 'Choose one of PANIC, FATAL, ERROR, WARN, INFO, DEBUG, TRACE.',
        });
      }
      log.setLevel(new_level.toLowerCase() as LogLevel);
      log.info({ level: log.level }, 'log level set');
      return state();
    },
    ResetLogLevel() {
      log.setLevel();
      return state();
    },
  };
  return { name: 'spire.api.server.logger.v1.Logger', methods };
}
