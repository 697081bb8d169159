/** An agent that a fake server knows, without the way there. */
import { requestKey } from '../../../agent/request-key.ts';
import type { NodeRecord } from '../../../agent/state.ts';
import { takeSvid } from '../../../agent/svid.ts';
import type { FakeServer } from './fake-server.ts';

export async function attestedRecord(server: FakeServer): Promise<NodeRecord> {
  const key = await requestKey('ec-p256');
  const api = server.open(undefined);
  const { chain, reattestable } = await api.attest(
    { type: 'fake', payload: Buffer.from('x') },
    key.csr,
    (challenge) => challenge,
  );
  server.calls.length = 0;
  return { ...takeSvid(chain, key, { unit: 0.5 }), reattestable };
}
