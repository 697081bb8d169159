/** A stream of full states: what every subscription on the agent's sockets is. */
import type { Call, Encoded, Send } from '../../src/rpc/serve.ts';

/** Calls its argument whenever there may be something new to say; what it gives is called at the end. */
export type Wakes = (wake: () => void) => () => void;

/**
 * Sends what `make` gives, now and after each waking, until the caller goes away or `make` refuses. A state that `make`
 * has nothing to say of (undefined) is not sent, nor the same message twice; changes during a send are sent as one.
 */
export async function follow(
  call: Call,
  send: Send,
  make: () => Encoded | undefined,
  ...wakes: readonly Wakes[]
): Promise<void> {
  let changed = true;
  let wake = (): void => {};
  const told = (): void => {
    changed = true;
    wake();
  };
  const ends = wakes.map((one) => one(told));
  const forget = call.onBroken(told);
  let last: Encoded | undefined;
  try {
    for (;;) {
      changed = false;
      const message = make();
      if (message !== undefined && (last === undefined || (message !== last && !message.bytes.equals(last.bytes)))) {
        last = message;
        await send(message);
      }
      if (call.broken !== undefined) throw call.broken;
      if (changed) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      if (call.broken !== undefined) throw call.broken;
    }
  } finally {
    forget();
    for (const end of ends) end();
  }
}
