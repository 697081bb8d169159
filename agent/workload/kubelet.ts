/**
 * The kubelet of this node: its list of pods, over its secure port or its read-only one. One list serves everybody who asks
 * at the same time and for half a poll afterwards. The token is read for each list, since Kubernetes changes it in place;
 * certificates are read again every `reloadInterval`, and after a list that failed.
 */
import { readFileSync } from 'node:fs';
import { Fault, quote } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import { type Address, getJson, type JsonReply, type Tls, textOf } from './get-json.ts';
import { type Pods, readPods } from './pods.ts';

export interface KubeletOptions {
  readonly nodeName?: string;
  readonly kubeletReadOnlyPort?: number;
  readonly kubeletSecurePort: number;
  readonly kubeletCaPath: string;
  readonly skipKubeletVerification: boolean;
  readonly useAnonymousAuthentication: boolean;
  readonly tokenPath: string;
  readonly certificatePath?: string;
  readonly privateKeyPath?: string;
  /** Milliseconds. */
  readonly pollRetryInterval: number;
  readonly reloadInterval: number;
}

export interface Kubelet {
  /** The pods as kubelet knows them now, at most half a poll old. Rejects with the signal's reason when it is aborted. */
  pods(signal: AbortSignal): Promise<Pods>;
}

/** Milliseconds for one list. */
const patience = 10_000;
/** Bytes: some hundred pods with everything that Kubernetes writes into them. */
const longest = 64 * 1024 * 1024;

export function kubelet(options: KubeletOptions, clock: Clock): Kubelet {
  const address = addressOf(options, clock);
  let latest: { readonly at: number; readonly pods: Pods } | undefined;
  let underWay: { readonly list: Promise<Pods>; readonly stop: AbortController; waiting: number } | undefined;

  const list = async (signal: AbortSignal): Promise<Pods> => {
    try {
      const headers = authorization(options);
      const reply = await getJson('kubelet', address.now(), { path: '/pods', headers, signal, most: longest });
      requireList(reply);
      const pods = readPods(reply.body);
      latest = { at: clock.now(), pods };
      return pods;
    } catch (error) {
      address.forget();
      throw error;
    }
  };

  const begin = (): NonNullable<typeof underWay> => {
    const stop = new AbortController();
    const late = new Fault('peer/unavailable', `kubelet gave no list of pods within ${patience} ms`);
    const cancel = clock.after(patience, () => stop.abort(late));
    const one = { list: list(stop.signal), stop, waiting: 0 };
    const end = (): void => {
      cancel();
      if (underWay === one) underWay = undefined;
    };
    one.list.then(end, end);
    return one;
  };

  return {
    async pods(signal) {
      signal.throwIfAborted();
      const now = clock.now();
      if (latest !== undefined && now >= latest.at && now - latest.at < options.pollRetryInterval / 2)
        return latest.pods;
      underWay ??= begin();
      const one = underWay;
      one.waiting += 1;
      const { promise: aborted, reject } = Promise.withResolvers<never>();
      const onAbort = (): void => reject(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        return await Promise.race([one.list, aborted]);
      } finally {
        signal.removeEventListener('abort', onAbort);
        one.waiting -= 1;
        if (one.waiting === 0) {
          if (underWay === one) underWay = undefined;
          one.stop.abort(signal.reason);
        }
      }
    },
  };
}

function requireList({ status, body }: JsonReply): void {
  if (status === 401 || status === 403) {
    throw new Fault('peer/failed', `kubelet refuses to list its pods to the agent (${status})`, {
      hint: 'Let the service account of the agent get nodes/proxy, and check workloadAttestors.k8s.tokenPath.',
    });
  }
  if (status !== 200) throw new Fault('peer/failed', `kubelet answers ${status} for its pods`);
  if (textOf(body, 'kind') !== 'PodList')
    throw new Fault('peer/failed', 'kubelet answers with something else than a PodList');
}

/** Where to ask and whom to believe there. */
function addressOf(options: KubeletOptions, clock: Clock): { now(): Address; forget(): void } {
  const host = options.nodeName ?? '127.0.0.1';
  let read: { readonly at: number; readonly tls: Tls } | undefined;
  return {
    now() {
      if (options.kubeletReadOnlyPort !== undefined) return { host, port: options.kubeletReadOnlyPort };
      const now = clock.now();
      if (read === undefined || now - read.at >= options.reloadInterval || now < read.at)
        read = { at: now, tls: readTls(options) };
      return { host, port: options.kubeletSecurePort, tls: read.tls };
    },
    forget() {
      read = undefined;
    },
  };
}

function readTls(options: KubeletOptions): Tls {
  const { certificatePath, privateKeyPath, useAnonymousAuthentication } = options;
  return {
    ...(options.skipKubeletVerification ? { trustAnyone: true as const } : { ca: readText(options.kubeletCaPath) }),
    ...(certificatePath !== undefined &&
      privateKeyPath !== undefined &&
      !useAnonymousAuthentication && { cert: readText(certificatePath), key: readText(privateKeyPath) }),
  };
}

/** A token, where there is no client certificate and nobody said that it goes without; never in the clear. */
function authorization(options: KubeletOptions): Record<string, string> {
  const isWithout =
    options.kubeletReadOnlyPort !== undefined ||
    options.useAnonymousAuthentication ||
    options.certificatePath !== undefined;
  if (isWithout) return {};
  const token = readText(options.tokenPath).trim();
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new Fault('config/invalid', `the file ${quote(options.tokenPath)} does not hold a token`);
  return { authorization: `Bearer ${token}` };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Fault(
      'config/invalid',
      `the file ${quote(path)} for kubelet cannot be read: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
}
