/** mutual.server.v1.Rotation: replacing the trust domain's signing authorities on purpose, on all its servers. */
import { Fault } from '../../src/errors.ts';
import type { Service } from '../../src/rpc/serve.ts';
import type { Conduct, Standing } from '../rotation/conduct.ts';
import { authorityKinds, holderOf, type Kind, kindOf, type Mode, staysBelow, stepsDone } from '../rotation/rotation.ts';

/** Agents named in one answer. */
const mostNamed = 1000;

export function rotationService(conduct: Conduct): Service {
  return {
    name: 'mutual.server.v1.Rotation',
    methods: {
      async StartRotation({ mode, kinds }: { mode: string; kinds: string[] }) {
        return toWire(await conduct.start(modeOf(mode), kinds.map(kindFrom)));
      },
      async AdvanceRotation({ id, force }: { id: string; force: boolean }) {
        if (id === '') throw new Fault('input/invalid', 'the ID of the rotation is missing');
        return toWire(await conduct.advance(id, force));
      },
      GetRotation: async () => toWire(await conduct.get()),
    },
  };
}

function modeOf(mode: string): Mode {
  if (mode === 'PLANNED' || mode === 'EMERGENCY') return mode.toLowerCase() as Mode;
  throw new Fault('input/invalid', `rotation mode ${mode} is unknown: expected PLANNED or EMERGENCY`);
}

function kindFrom(kind: string): Kind {
  const known = authorityKinds.find((one) => one.toUpperCase() === kind);
  if (known) return known;
  throw new Fault('input/invalid', `authority kind ${kind} is unknown: expected X509, JWT or WIT`);
}

function toWire({ rotation, slots, coverage, federated, waitingFor }: Standing): object {
  return {
    id: rotation.id,
    mode: rotation.mode.toUpperCase(),
    step: rotation.step.toUpperCase(),
    started_at: Math.floor(rotation.startedAt / 1000),
    authorities: Object.entries(rotation.parts).map(([document, part]) => {
      const done = stepsDone(rotation, part, slots.get(document));
      return {
        kind: kindOf(document).toUpperCase(),
        server: holderOf(document),
        old_authority_id: part.from,
        new_authority_id: part.next ?? '',
        prepared: done >= 1,
        activated: done >= 2,
        tainted: done >= 3,
        revoked: done >= 4,
        left_out: part.leftOut === true,
        old_root_id: part.fromRoot ?? '',
        new_root_id: part.nextRoot ?? '',
        root_stays: staysBelow(rotation, part),
      };
    }),
    coverage: {
      agents: coverage.agents,
      covered: coverage.covered,
      polling: coverage.polling,
      expired: coverage.expired,
      uncovered: coverage.uncovered
        .slice(0, mostNamed)
        .map(({ id, why, heardAt }) => ({ id, why, last_heard: Math.floor(heardAt / 1000) })),
      federated,
    },
    waiting_for: waitingFor ?? '',
    forced: rotation.forced.map((step) => step.toUpperCase()),
  };
}
