/** How a node can prove what it is: one row a method. */
import { Fault } from '../../src/errors.ts';
import type { Random } from '../../src/run/random.ts';
import type { AgentOptions } from '../config.ts';
import { joinToken } from './join-token.ts';
import { x509Pop } from './x509-pop.ts';

/** One attestation under way: what is sent first, and the answer to each challenge. */
export interface Attempt {
  readonly data: { readonly type: string; readonly payload: Buffer };
  /** Throws a Fault when the challenge is not one that this method answers. */
  answer(challenge: Buffer): Buffer | Promise<Buffer>;
}

export interface AttestMethod {
  /** The type on the wire. */
  readonly name: string;
  /** Reads what the proof is made from, anew each time: files may have been replaced. Throws `config/invalid`. */
  begin(): Promise<Attempt>;
}

/** Each method's row: whether the options ask for it, and how it is made from them. */
const methods: readonly {
  name: string;
  asked(options: AgentOptions): boolean;
  make(options: AgentOptions, random: Random): AttestMethod;
}[] = [
  {
    name: 'join_token',
    asked: (options) => options.joinToken !== undefined || options.joinTokenFile !== undefined,
    make: (options) => joinToken(options),
  },
  {
    name: 'x509pop',
    asked: (options) => options.nodeAttestor?.x509pop !== undefined,
    make: (options, random) => x509Pop(options.nodeAttestor.x509pop!, random),
  },
];

/** The one method that the options ask for; undefined when they ask for none. Throws `config/invalid` for more than one. */
export function chooseMethod(options: AgentOptions, random: Random): AttestMethod | undefined {
  const asked = methods.filter((method) => method.asked(options));
  if (asked.length > 1) {
    throw new Fault(
      'config/invalid',
      `node attestation is configured ${asked.length} times: ${asked.map(({ name }) => name).join(', ')}`,
      {
        hint: 'Keep one: a join token, or the x509pop node attestor.',
      },
    );
  }
  return asked[0]?.make(options, random);
}
