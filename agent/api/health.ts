/** grpc.health.v1: whether the agent can serve. The empty name stands for the whole program; the Workload API has its own. */
import { Fault, quote } from '../../src/errors.ts';
import type { Call, Send, Service } from '../../src/rpc/serve.ts';
import type { Live } from '../../src/run/live.ts';

const names: ReadonlySet<string> = new Set(['', 'SpiffeWorkloadAPI']);

/** @param serving whether the agent has identities to serve, or knows that it has none */
export function healthApi(serving: Live<boolean>): Service {
  const status = (): { status: 'SERVING' | 'NOT_SERVING' } => ({ status: serving.value ? 'SERVING' : 'NOT_SERVING' });
  return {
    name: 'grpc.health.v1.Health',
    methods: {
      Check({ service }: { service: string }) {
        if (names.has(service)) return status();
        throw new Fault('thing/missing', `service ${quote(service)} is not served here`);
      },
      async Watch({ service }: { service: string }, call: Call, send: Send) {
        if (!names.has(service)) await send({ status: 'SERVICE_UNKNOWN' });
        else await watch(serving, call, () => send(status()));
      },
    },
  };
}

async function watch(serving: Live<boolean>, call: Call, tell: () => Promise<void>): Promise<void> {
  let changed = Promise.withResolvers<void>();
  const unlisten = serving.onChange(() => changed.resolve());
  const onAbort = (): void => changed.reject(call.signal.reason);
  call.signal.addEventListener('abort', onAbort, { once: true });
  try {
    for (;;) {
      const { promise } = changed;
      promise.catch(() => {});
      await tell();
      await promise;
      changed = Promise.withResolvers<void>();
      if (call.signal.aborted) onAbort();
    }
  } finally {
    unlisten();
    call.signal.removeEventListener('abort', onAbort);
  }
}
