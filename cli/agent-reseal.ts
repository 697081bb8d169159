import { agentTable } from '../agent/config.ts';
import { resealCommand } from './reseal.ts';

export const agentReseal = resealCommand(
  'agent',
  agentTable,
  '',
  async () => (await import('../agent/main.ts')).resealKeys,
);
