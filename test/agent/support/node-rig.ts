/** A node with a fake server, on a driven clock, and everything it saves in view. */

import type { AttestMethod } from '../../../agent/attest/methods.ts';
import { serverLink } from '../../../agent/link.ts';
import { makeNode, type Node } from '../../../agent/node.ts';
import type { NodeRecord } from '../../../agent/state.ts';
import { silentLog } from '../../../src/log.ts';
import { live } from '../../../src/run/live.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { drivenClock } from '../../support/clock.ts';
import { domain, type FakeServer, fakeServer } from './fake-server.ts';
import { middling } from './random.ts';

export function nodeRig(
  options: {
    type?: string;
    token?: string;
    units?: readonly number[];
    method?: AttestMethod | null;
    availabilityTarget?: number;
  } = {},
) {
  const clock = drivenClock();
  const server: FakeServer = fakeServer(clock);
  const link = serverLink(clock, (node) => server.open(node));
  const ownBundle = live<Bundle>(server.authority.bundle());
  const saved: (NodeRecord | 'forgotten')[] = [];
  const type = options.type ?? 'join_token';
  const method: AttestMethod = options.method ?? {
    name: type,
    begin: async () => ({
      data: { type, payload: Buffer.from(options.token ?? 'the-token') },
      answer: (challenge) => challenge,
    }),
  };
  const controller = new AbortController();
  let ended: unknown;
  const make = (kept?: NodeRecord): Node =>
    makeNode(
      {
        keyType: 'ec-p256',
        clock,
        random: middling(options.units),
        log: silentLog,
        link,
        trustDomain: domain,
        method: options.method === null ? undefined : method,
        availabilityTarget: options.availabilityTarget,
        ownBundle,
        async save(node) {
          saved.push(node);
        },
        async forget() {
          saved.push('forgotten');
        },
      },
      kept,
    );
  return {
    clock,
    server,
    link,
    ownBundle,
    saved,
    make,
    signal: controller.signal,
    /** Runs a node in the background; `ended` is what its run threw. */
    run(node: Node): void {
      node.run(controller.signal).catch((error: unknown) => {
        ended = error;
      });
    },
    get ended() {
      return ended as any;
    },
    stop: () => controller.abort(new Error('stop')),
  };
}
