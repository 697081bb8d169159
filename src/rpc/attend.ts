/** What a connection is asked while it lasts: whether its other end is still there, and whether anybody needs it. */
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Clock } from '../run/clock.ts';
import { type Limits, never } from './limits.ts';

/**
 * Closes a connection that has had no stream for `idleMs`, and breaks off one whose other end does not answer a ping, sent
 * every `keepaliveMs`, within a third of that. To be told of each stream that opens.
 */
export function attend(
  session: ServerHttp2Session,
  { keepaliveMs, idleMs }: Pick<Limits, 'keepaliveMs' | 'idleMs'>,
  clock: Clock,
): (stream: ServerHttp2Stream) => void {
  if (keepaliveMs !== never) askForLife(session, keepaliveMs, clock);
  return idleMs === never ? () => {} : closeIdle(session, idleMs, clock);
}

function askForLife(session: ServerHttp2Session, every: number, clock: Clock): void {
  let cancel = (): void => {};
  const wait = (): void => {
    cancel = clock.after(every, ask);
  };
  const ask = (): void => {
    cancel = clock.after(Math.ceil(every / 3), () => session.destroy());
    const isSent = session.ping((error) => {
      cancel();
      if (error === null) wait();
    });
    // Too many of them are unanswered.
    if (!isSent) session.destroy();
  };
  wait();
  session.once('close', () => cancel());
}

function closeIdle(session: ServerHttp2Session, idleMs: number, clock: Clock): (stream: ServerHttp2Stream) => void {
  let open = 0;
  let since = clock.now();
  const over = (): void => {
    if (--open === 0) since = clock.now();
  };
  let cancel = (): void => {};
  // One timer for all streams: it looks how long there was none, and comes back when that could have become enough.
  const look = (): void => {
    const left = open > 0 ? idleMs : since + idleMs - clock.now();
    if (left <= 0) session.close();
    else cancel = clock.after(left, look);
  };
  look();
  session.once('close', () => cancel());
  return (stream) => {
    open += 1;
    stream.once('close', over);
  };
}
