/** Messages in the form in which they travel. */

/** A message that is already serialised, such as a response that many callers get. */
export class Encoded {
  #bytes: Buffer;
  #frame: Buffer | undefined;
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  get bytes(): Buffer {
    return this.#bytes;
  }
  /** As it travels: a flag (not compressed), the length, the bytes. Made once, and from then on the bytes lie in it. */
  get frame(): Buffer {
    if (this.#frame === undefined) {
      const { length } = this.#bytes;
      const frame = Buffer.allocUnsafe(prefixLength + length);
      frame[0] = 0;
      frame.writeUInt32BE(length, 1);
      frame.set(this.#bytes, prefixLength);
      this.#frame = frame;
      this.#bytes = frame.subarray(prefixLength);
    }
    return this.#frame;
  }
}

/** Of what stands before a message on the wire, bytes. */
export const prefixLength = 5;

/** Marks bytes as a serialised message, which handlers return or send in place of an object. */
export function encoded(bytes: Buffer): Encoded {
  return new Encoded(bytes);
}
