/**
 * Where lines go. Each is written at once, since the last line before a crash is the one that is needed; and one that
 * cannot be written (a full disk, a closed pipe) is lost, since a program that stops for its log helps nobody. The logger's
 * own destinations keep such lines in memory without end.
 */
import { closeSync, openSync, writeSync } from 'node:fs';

export interface Sink {
  write(line: string): void;
  reopen(): void;
  close(): void;
}

/** Lines are lost after this many refusals of a full pipe, each of which costs microseconds. */
const patience = 100;

export const standardError: Sink = { write: (line) => writeLine(2, line), reopen() {}, close() {} };

/** Appends to a file, made with mode 0640. Throws what the system says when it cannot be opened. */
export function openFileSink(file: string): Sink {
  const open = (): number => openSync(file, 'a', 0o640);
  let descriptor = open();
  let closed = false;
  return {
    write(line) {
      if (!closed) writeLine(descriptor, line);
    },
    reopen() {
      if (closed) return;
      let next: number;
      try {
        next = open();
      } catch {
        // The old file takes the lines on: a log somewhere is better than none.
        return;
      }
      closeSync(descriptor);
      descriptor = next;
    },
    close() {
      if (!closed) closeSync(descriptor);
      closed = true;
    },
  };
}

function writeLine(descriptor: number, line: string): void {
  let rest = Buffer.from(line);
  for (let refusals = 0; rest.length > 0 && refusals < patience; ) {
    try {
      rest = rest.subarray(writeSync(descriptor, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      refusals += 1;
    }
  }
}
