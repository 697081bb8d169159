/** mutual.agent.v1.Explain, on the admin socket: why a process got nothing. Never on the socket of workloads. */
import { Fault } from '../../src/errors.ts';
import type { Service } from '../../src/rpc/serve.ts';
import { selectorsFromWire, selectorToWire, type WireSelector } from '../../src/wire/id.ts';
import { diagnose } from '../diagnose.ts';
import { type ExplainPorts, gatherFacts } from '../explain.ts';

interface ExplainRequest {
  readonly pid: number;
  readonly selectors: readonly WireSelector[];
}

const seconds = (ms: number): number => Math.floor(ms / 1000);
const mostSelectors = 1_000;

export function explainApi(ports: ExplainPorts): Service {
  return {
    name: 'mutual.agent.v1.Explain',
    methods: {
      async Explain({ pid, selectors }: ExplainRequest) {
        if (pid < 0) throw new Fault('input/invalid', `pid ${pid} is not valid: expected a number above 0`);
        if (pid > 0 && selectors.length > 0)
          throw new Fault('input/invalid', 'a pid and selectors are given: expected one of them');
        if (selectors.length > mostSelectors)
          throw new Fault(
            'input/invalid',
            `${selectors.length} selectors are given: at most ${mostSelectors} are taken`,
          );
        const facts = await gatherFacts(
          pid === 0 && selectors.length === 0 ? lastRefused(ports) : pid,
          selectorsFromWire(selectors),
          ports,
        );
        return {
          ...diagnose(facts),
          pid: facts.pid,
          attestors: facts.attestations.map((one) => ({
            name: one.name,
            selectors: one.selectors.map(selectorToWire),
            error: one.error ?? '',
          })),
          selectors: facts.selectors.map(selectorToWire),
          matching: facts.matching.map(({ entry, obstacle }) => ({
            id: entry.id,
            spiffe_id: entry.spiffeId,
            lacking: [],
            obstacle: obstacle?.text ?? '',
          })),
          nearest: facts.nearest.map(({ entry, lacking }) => ({
            id: entry.id,
            spiffe_id: entry.spiffeId,
            lacking: lacking.map(selectorToWire),
            obstacle: '',
          })),
          agent_id: facts.agentId ?? '',
          last_sync: seconds(facts.lastSync),
          outage: facts.outage ?? '',
          entries: facts.entryCount,
          refusals: facts.refusals.map((one) => ({ ...one, at: seconds(one.at) })),
        };
      },
    },
  };
}

function lastRefused({ refusals }: ExplainPorts): number {
  const last = refusals().find(({ pid }) => pid > 0);
  if (last !== undefined) return last.pid;
  throw new Fault('thing/missing', 'no call of a workload was refused since the agent started', {
    hint: 'Name a process with --pid, or what it would have with --selector.',
  });
}
