/**
 * The kubelet of this node. The token is read for each list, since Kubernetes changes it in place; certificates are read
 * again every `reloadInterval`, and after a list that failed.
 */
import { readFileSync } from 'node:fs';
import { Fault, quote } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Address, Tls } from './get-json.ts';
import type { PodSource } from './pod-list.ts';

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

/** Kubelet as the one who has the list, over its secure port or its read-only one. */
export function kubelet(options: KubeletOptions, clock: Clock): PodSource {
  const address = addressOf(options, clock);
  return {
    name: 'kubelet',
    path: '/pods',
    rights: 'Let the service account of the agent get nodes/proxy, and check workloadAttestors.k8s.tokenPath.',
    address: address.now,
    headers: () => authorization(options),
    forget: address.forget,
  };
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
  return isWithout ? {} : bearer(options.tokenPath);
}

/** A token as a header. Throws `config/invalid`. */
export function bearer(path: string): Record<string, string> {
  const token = readText(path).trim();
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Fault('config/invalid', `the file ${quote(path)} does not hold a token`);
  return { authorization: `Bearer ${token}` };
}

export function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Fault(
      'config/invalid',
      `the file ${quote(path)} for Kubernetes cannot be read: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
}
