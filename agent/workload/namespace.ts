/**
 * `ns-label`: the labels of the namespace of a process's pod, from the API server. Which pod that is, the method `k8s` says
 * with all of its checks. It stands beside that one, so that a cluster whose API server is away takes no other selectors
 * away. Labels may change: what was found counts for `reloadInterval`.
 */
import { LRUCache } from 'lru-cache';
import { Fault, quote } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { type ApiServerOptions, apiServerAccess, apiServerName } from './api-server.ts';
import { fieldsOf, getJson, textOf } from './get-json.ts';
import type { WorkloadMethod } from './methods.ts';

/** Namespaces remembered, milliseconds for one answer, and bytes in it. */
const kept = 1_000;
const patience = 5_000;
const longest = 1024 * 1024;
const prefix = 'k8s:ns:';

export function namespaceMethod(options: ApiServerOptions, k8s: WorkloadMethod, clock: Clock): WorkloadMethod {
  const access = apiServerAccess(options, clock);
  const known = new LRUCache<string, { readonly at: number; readonly selectors: readonly Selector[] }>({ max: kept });

  const ask = async (namespace: string, signal: AbortSignal): Promise<readonly Selector[]> => {
    const before = known.get(namespace);
    const now = clock.now();
    if (before !== undefined && now >= before.at && now - before.at < options.reloadInterval) return before.selectors;
    try {
      const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}`;
      const question = { path, headers: access.headers(), signal, most: longest };
      const { status, body } = await getJson(apiServerName, access.address(), question);
      if (status === 401 || status === 403) {
        throw new Fault('peer/failed', `${apiServerName} refuses to show namespaces to the agent (${status})`, {
          hint: 'Let the service account of the agent get namespaces, and check workloadAttestors.k8s.tokenPath.',
        });
      }
      const metadata = fieldsOf(body, 'metadata');
      if (status !== 200 || textOf(body, 'kind') !== 'Namespace' || textOf(metadata, 'name') !== namespace)
        throw new Fault('peer/failed', `${apiServerName} answers ${status} for namespace ${quote(namespace)}`);
      const selectors = Object.entries(fieldsOf(metadata, 'labels'))
        .map(([name, value]) => `ns-label:${name}:${value}`)
        .filter((value) => !value.includes('\0'))
        .map((value) => makeSelector('k8s', value));
      known.set(namespace, { at: now, selectors });
      return selectors;
    } catch (error) {
      access.forget();
      throw error;
    }
  };

  return {
    name: 'namespace',
    deadline: Math.min(60_000, k8s.deadline + patience),
    fingerprint: k8s.fingerprint,
    async attest(pid, signal) {
      const found = (await k8s.attest(pid, signal)).find((selector) => selector.startsWith(prefix));
      return found === undefined ? [] : ask(found.slice(prefix.length), signal);
    },
  };
}
