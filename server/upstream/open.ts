/** From the options of the server to its upstream authority: one row for each. */

import { type LoadPackage, loadPackage } from '../../src/keys/load-package.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Random } from '../../src/run/random.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { awsPcaUpstream } from './aws-pca.ts';
import { csrUpstream } from './csr.ts';
import { diskUpstream } from './disk.ts';
import { certManagerUpstream } from './kubernetes-issuer.ts';
import type { UpstreamName, UpstreamOptions } from './options.ts';
import { spireUpstream } from './spire.ts';
import type { Upstream } from './upstream.ts';
import { vaultUpstream } from './vault.ts';

export interface UpstreamPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly trustDomain: TrustDomain;
  /** Whether every connection needs a hybrid post-quantum key exchange. */
  readonly requirePostQuantum: boolean;
  /** Where optional packages come from; tests put their own in the place. */
  readonly load?: LoadPackage | undefined;
}

type Open = (options: UpstreamOptions, ports: UpstreamPorts) => Upstream | Promise<Upstream>;

/** The rules of the options see to it that the section of the chosen one is there. */
const upstreams: Readonly<Record<UpstreamName, Open>> = {
  disk: ({ disk }, ports) => diskUpstream(disk!, ports),
  'aws-pca': ({ awsPca }, { clock, load = loadPackage }) => awsPcaUpstream(awsPca!, { clock, load }),
  'cert-manager': ({ certManager }, ports) => certManagerUpstream(certManager!, ports),
  csr: ({ csr }) => csrUpstream(csr!),
  spire: ({ spire }, ports) => spireUpstream(spire!, ports),
  vault: ({ vault }, ports) => vaultUpstream(vault!, ports),
};

/** Opens what `upstream.authority` names; undefined for `none`. Throws `config/invalid`. */
export async function openUpstream(options: UpstreamOptions, ports: UpstreamPorts): Promise<Upstream | undefined> {
  return options.authority === 'none' ? undefined : upstreams[options.authority](options, ports);
}
