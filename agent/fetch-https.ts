/** One GET over https with the machine's own trust: for a bundle that the operator has put on a web page. No redirects. */
import { get } from 'node:https';
import { Fault, quote } from '../src/errors.ts';

/** Milliseconds without a byte after which the page is given up. */
const patience = 30_000;

/**
 * The body as text.
 * @param most bytes accepted
 * @param ca PEM of the authorities to trust in place of the machine's
 * Throws `peer/unavailable` with what went wrong.
 */
export function fetchHttps(url: string, most: number, ca?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const refuse = (why: string, cause?: unknown): void =>
      reject(
        new Fault('peer/unavailable', `trust bundle ${quote(url)} cannot be fetched: ${why}`, {
          hint: 'Check the address and its certificate.',
          cause,
        }),
      );
    const request = get(url, { timeout: patience, ...(ca === undefined ? {} : { ca }) }, (response) => {
      if (response.statusCode !== 200) {
        response.resume();
        return refuse(`the answer is ${response.statusCode}, not 200`);
      }
      const parts: Buffer[] = [];
      let size = 0;
      response.on('data', (part: Buffer) => {
        size += part.length;
        if (size > most) request.destroy(new Error(`it is larger than ${most} bytes`));
        else parts.push(part);
      });
      response.on('end', () => resolve(Buffer.concat(parts).toString('utf8')));
      response.on('error', (error) => refuse(error.message, error));
    });
    request.on('timeout', () => request.destroy(new Error(`nothing came for ${patience / 1000} s`)));
    request.on('error', (error) => refuse(error.message, error));
  });
}
