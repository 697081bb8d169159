/** Serial numbers of certificates. */

/** 127 random bits, positive (RFC 5280 §4.1.2.2). @param random strong bytes */
export function newSerial(random: { bytes(length: number): Buffer }): Buffer {
  const serial = random.bytes(16);
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40;
  return serial;
}
