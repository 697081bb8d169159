/** `join_token`: a secret that the server made for this node, good for one use. The payload is the token's bytes. */
import { Fault, quote } from '../../src/errors.ts';
import { readFileIfThere } from '../../src/run/file.ts';
import type { AttestMethod } from './methods.ts';

/** The longest token a file may hold, in bytes; it becomes part of the agent's ID. */
const longestToken = 1_024;

/** @param options the token itself, or the file that holds it (surrounding white space does not count) */
export function joinToken(options: {
  readonly joinToken?: string | undefined;
  readonly joinTokenFile?: string | undefined;
}): AttestMethod {
  return {
    name: 'join_token',
    async begin() {
      const token = options.joinToken ?? (await readToken(options.joinTokenFile!));
      return {
        data: { type: 'join_token', payload: Buffer.from(token) },
        answer() {
          throw new Fault('peer/unavailable', 'the server sent a challenge for a join token, which has none');
        },
      };
    },
  };
}

async function readToken(path: string): Promise<string> {
  const content = await readFileIfThere(path);
  if (content === undefined) {
    throw new Fault('config/invalid', `join token file ${quote(path)} does not exist`, {
      hint: 'Write a token of `mutual token create` to it.',
    });
  }
  const token = content.data.length > longestToken ? '' : content.data.toString('utf8').trim();
  if (token === '' || /\s/.test(token)) {
    throw new Fault('config/invalid', `join token file ${quote(path)} does not hold one token`, {
      hint: 'Write a token of `mutual token create` to it, and nothing else.',
    });
  }
  return token;
}
