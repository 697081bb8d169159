/**
 * The API server of the cluster, asked for the pods of this node and for the labels of namespaces, by the account of the
 * agent. Its token is read each time, its roots every `reloadInterval` and after a failure.
 */
import type { HostPort } from '../../src/config/kinds.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Address } from './get-json.ts';
import { bearer, readText } from './kubelet.ts';
import type { PodSource } from './pod-list.ts';

export interface ApiServerOptions {
  readonly apiServer: HostPort;
  readonly apiServerCaPath: string;
  readonly tokenPath: string;
  readonly nodeName?: string;
  /** Milliseconds. */
  readonly reloadInterval: number;
}

/** How it is reached. */
export interface ApiServerAccess {
  address(): Address;
  headers(): Record<string, string>;
  forget(): void;
}

/** Who is asked, in messages. */
export const apiServerName = 'the API server';

export function apiServerAccess(options: ApiServerOptions, clock: Clock): ApiServerAccess {
  let read: { readonly at: number; readonly ca: string } | undefined;
  return {
    address() {
      const now = clock.now();
      if (read === undefined || now - read.at >= options.reloadInterval || now < read.at)
        read = { at: now, ca: readText(options.apiServerCaPath) };
      return { ...options.apiServer, tls: { ca: read.ca } };
    },
    headers: () => bearer(options.tokenPath),
    forget() {
      read = undefined;
    },
  };
}

/** The API server as the one who has the list: of the pods of this node alone. */
export function apiServer(options: ApiServerOptions, clock: Clock): PodSource {
  const node = encodeURIComponent(`spec.nodeName=${options.nodeName ?? ''}`);
  return {
    ...apiServerAccess(options, clock),
    name: apiServerName,
    path: `/api/v1/pods?fieldSelector=${node}`,
    rights: 'Let the service account of the agent list pods, and check workloadAttestors.k8s.tokenPath.',
  };
}
