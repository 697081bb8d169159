/** What real programs issued, shown to the validators of this project. */

import assert from 'node:assert/strict';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { parseBundle } from '../../../src/spiffe/bundle-jwks.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { verifyJwtSvid } from '../../../src/spiffe/jwt-svid.ts';
import { verifyX509Svid } from '../../../src/spiffe/x509-svid.ts';
import type { Server } from './pair.ts';
import type { Event } from './program.ts';
import { spireCli } from './spire.ts';

/** The server's bundle in the SPIFFE format, read by our parser. */
export async function bundleOf(server: Server): Promise<Bundle> {
  const { stdout } = await spireCli(server.adminSocket, ['bundle', 'show', '-format', 'spiffe']);
  return parseBundle(stdout, parseTrustDomain(server.trustDomain));
}

/** Every SVID of an x509 event of peer-workload passes. */
export async function acceptX509(server: Server, event: Event): Promise<void> {
  const bundle = await bundleOf(server);
  for (const svid of event.svids as { id: string; chain: string[] }[]) {
    const chain = svid.chain.map((text) => Buffer.from(text, 'base64'));
    assert.equal(String(verifyX509Svid(chain, bundle, Date.now()).id), svid.id);
  }
}

/** The token passes for the audience. */
export async function acceptJwt(server: Server, token: string, audience: string): Promise<void> {
  const bundle = await bundleOf(server);
  const { id } = await verifyJwtSvid(token, audience, () => bundle, Date.now());
  assert.ok(String(id).startsWith(`spiffe://${server.trustDomain}/`));
}
