/** Whoever replaces authorities at a server by hand: with the Go command line, or with ours. Both print the same JSON. */
import { mutual } from './mutual.ts';
import { admin, type Make, type Server } from './pair.ts';

export interface AuthorityState {
  readonly authority_id: string;
  readonly expires_at: string;
  readonly upstream_authority_subject_key_id: string;
}

export interface Operator {
  show(kind: 'x509' | 'jwt'): Promise<{
    readonly active?: AuthorityState;
    readonly prepared?: AuthorityState;
    readonly old?: AuthorityState;
  }>;
  prepare(kind: 'x509' | 'jwt'): Promise<AuthorityState>;
  step(verb: 'activate' | 'taint' | 'revoke', kind: 'x509' | 'jwt', id: string): Promise<AuthorityState>;
  /** Gives the id that was answered. */
  root(verb: 'taint' | 'revoke', id: string): Promise<string>;
}

const done = { activate: 'activated_authority', taint: 'tainted_authority', revoke: 'revoked_authority' } as const;

export function operator(server: Server, make: Make): Operator {
  // biome-ignore lint/suspicious/noExplicitAny: the shape is the command's.
  async function ask(spire: string[], ours: string[]): Promise<any> {
    if (make === 'spire') return admin(server, ...spire);
    const { code, stdout, stderr } = await mutual([...ours, '--output', 'json', '--admin-socket', server.adminSocket]);
    if (code !== 0) throw new Error(`mutual ${ours.join(' ')} ended with ${code}: ${stdout}${stderr}`);
    return JSON.parse(stdout);
  }
  return {
    show: (kind) => ask(['localauthority', kind, 'show'], ['authority', kind, 'show']),
    prepare: async (kind) =>
      (await ask(['localauthority', kind, 'prepare'], ['authority', kind, 'prepare'])).prepared_authority,
    step: async (verb, kind, id) => {
      const theirs = ['localauthority', kind, verb, '-authorityID', id];
      return (await ask(theirs, ['authority', kind, verb, '--authority-id', id]))[done[verb]];
    },
    root: async (verb, id) => {
      const theirs = ['upstreamauthority', verb, '-subjectKeyID', id];
      const ours = ['upstream-authority', verb, '--subject-key-id', id];
      return (await ask(theirs, ours)).upstream_authority_subject_key_id;
    },
  };
}
