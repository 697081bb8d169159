/** A rotation over the API, and agents that say what they hold. */
import type { TestContext } from 'node:test';
import { authorityId, parseCertificate } from '../../../../src/crypto/certificate.ts';
import type { AgentPeer, TestServer } from '../../../support/server.ts';

export const service = 'mutual.server.v1.Rotation';

export function rotation(server: TestServer) {
  // biome-ignore lint/suspicious/noExplicitAny: a message.
  const call = (method: string, request: object): Promise<any> => server.admin.channel.unary(service, method, request);
  return {
    start: (mode: string, ...kinds: string[]) => call('StartRotation', { mode, kinds }),
    advance: (id: string, force = false) => call('AdvanceRotation', { id, force }),
    get: () => call('GetRotation', {}),
    /** Advances until it waits or has ended. */
    async go(id: string) {
      for (;;) {
        const state = await call('AdvanceRotation', { id });
        if (state.waiting_for !== '' || state.step === 'DONE') return state;
      }
    },
  };
}

/** An agent whose stream is open, and which says what it is told to. */
export async function follower(t: TestContext, server: TestServer) {
  const agent: AgentPeer = await server.attest();
  const talk = agent.channel.bidi('mutual.server.v1.Sync', 'Watch');
  t.after(() => talk.end());
  await talk.send({ start: {} });
  const responses = talk.responses[Symbol.asyncIterator]();
  await responses.next();
  let ask = 0;
  return {
    id: agent.id,
    peer: agent,
    /** Names everything in the bundle; `inUse` are those that it still serves something of. */
    async says(inUse: readonly string[] = []) {
      const bundle = await server.bundle();
      const held = (id: string, isTainted: boolean) => ({
        authority_id: id,
        tainted: isTainted,
        in_use: inUse.includes(id),
      });
      const x509_authorities = bundle.x509Authorities.map(({ certificate, tainted }) =>
        held(authorityId(parseCertificate(certificate)), tainted),
      );
      const jwt_authorities = bundle.jwtAuthorities.map((one) => held(one.keyId, one.tainted));
      await talk.send({ holdings: { bundle_sequence: String(bundle.sequence), x509_authorities, jwt_authorities } });
      // The answer to a question comes after what was said before it.
      await talk.send({ ask: { id: String(++ask) } });
      for (;;) {
        const { value } = await responses.next();
        if (Number(value.answer) === ask) return;
      }
    },
  };
}
