/**
 * Messages put together from the pieces in which they come. Each has a prefix: whether it is compressed, and its length.
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Length-Prefixed-Message
 */
import { Fault, Status } from '../errors.ts';
import { prefixLength } from './encoded.ts';

/** Memory for so much is taken at once, bytes; for the rest of a longer message it is taken as the message comes. */
const atOnce = 1 << 20;

export class MessageReader {
  readonly #most: number;
  readonly #take: (message: Buffer) => void;
  /** How much of the prefix has come. */
  #prefix = 0;
  #flag = 0;
  #announced = 0;
  #message: Buffer | undefined;
  #length = 0;

  /** @param most the longest message that is taken, bytes */
  constructor(most: number, take: (message: Buffer) => void) {
    this.#most = most;
    this.#take = take;
  }

  /** Whether a message has begun that has not come as a whole. */
  get isMidway(): boolean {
    return this.#prefix > 0;
  }

  /**
   * Hands on each message that is complete by now, as bytes of its own: those given lie in a larger piece of memory, which a
   * field of a message that is kept would keep. Throws `limit/exceeded`, and `peer/failed` for a compressed message: none was
   * asked for.
   */
  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      while (this.#prefix < prefixLength) {
        if (at === bytes.length) return;
        const byte = bytes[at++] as number;
        if (this.#prefix++ === 0) this.#flag = byte;
        else this.#announced = this.#announced * 256 + byte;
      }
      if (this.#message === undefined) this.#begin();
      at += this.#append(bytes, at);
      if (this.#length === this.#announced) this.#handOn();
    }
  }

  #begin(): void {
    if (this.#flag !== 0)
      throw new Fault('peer/failed', 'a message came compressed, and nothing was said of how', {
        status: Status.INTERNAL,
      });
    if (this.#announced > this.#most)
      throw new Fault('limit/exceeded', `a message of ${this.#announced} bytes came, and the most is ${this.#most}`);
    this.#message = Buffer.allocUnsafe(Math.min(this.#announced, atOnce));
  }

  /** Gives how many bytes were taken. */
  #append(bytes: Buffer, at: number): number {
    const count = Math.min(this.#announced - this.#length, bytes.length - at);
    const length = this.#length + count;
    let message = this.#message as Buffer;
    if (length > message.length) {
      message = Buffer.allocUnsafe(Math.min(this.#announced, Math.max(length, message.length * 2)));
      message.set((this.#message as Buffer).subarray(0, this.#length));
      this.#message = message;
    }
    bytes.copy(message, this.#length, at, at + count);
    this.#length = length;
    return count;
  }

  #handOn(): void {
    const message = this.#message as Buffer;
    this.#message = undefined;
    this.#prefix = this.#announced = this.#length = 0;
    this.#take(message);
  }
}
