import { serverTable } from '../server/config.ts';
import { resealCommand } from './reseal.ts';

export const serverReseal = resealCommand(
  'server',
  serverTable,
  'Keys that the servers of a database share (keys.shareJwt) are sealed anew with the first of them: give nextPassphraseFile to all and start them again before, since they open with either. ',
  async () => (await import('../server/main.ts')).resealKeys,
);
