/** Secrets to look for, in every form in which one might be printed or stored, and where they were found. */
import type { KeyObject } from 'node:crypto';

export interface Canaries {
  /** A text, such as a token. */
  text(what: string, secret: string): void;
  /** A private key: its private number, which its public half does not have. */
  key(what: string, key: KeyObject): void;
  /** What of them is in there, such as `join token as hex`; empty when nothing is. */
  foundIn(place: Buffer | string): string[];
  readonly size: number;
}

export function canaries(): Canaries {
  const forms = new Map<string, Buffer>();
  const whats = new Set<string>();
  function bytes(what: string, secret: Buffer): void {
    if (secret.length < 8) throw new Error(`${what} is too short to be told from chance`);
    whats.add(what);
    const hex = secret.toString('hex');
    forms.set(`${what} as bytes`, secret);
    forms.set(`${what} as hex`, Buffer.from(hex));
    forms.set(`${what} as HEX`, Buffer.from(hex.toUpperCase()));
    // As node prints a Buffer, and as JSON does.
    forms.set(`${what} as spaced hex`, Buffer.from((hex.match(/../g) as string[]).join(' ')));
    forms.set(`${what} as numbers`, Buffer.from([...secret].join(',')));
    // Base64 depends on where in a longer text the secret begins: what no neighbour changes is looked for.
    for (const shift of [0, 1, 2]) {
      const whole = Buffer.concat([Buffer.alloc(shift), secret]);
      for (const form of ['base64', 'base64url'] as const) {
        const text = whole.toString(form).replaceAll('=', '');
        forms.set(`${what} as ${form}, ${shift} bytes on`, Buffer.from(text.slice(shift === 0 ? 0 : 4, -2)));
      }
    }
  }
  return {
    text: (what, secret) => bytes(what, Buffer.from(secret)),
    key(what, key) {
      const { d } = key.export({ format: 'jwk' });
      // A part of it: a PEM breaks its lines.
      bytes(what, Buffer.from(String(d), 'base64url').subarray(0, 18));
    },
    foundIn(place) {
      const content = typeof place === 'string' ? Buffer.from(place) : place;
      const unbroken = Buffer.from(content.toString('latin1').replaceAll(/\r?\n|\\n/g, ''), 'latin1');
      return [...forms].filter(([, form]) => content.includes(form) || unbroken.includes(form)).map(([name]) => name);
    },
    get size() {
      return whats.size;
    },
  };
}
