/**
 * The agent's connection to its server. A renewed agent SVID needs a new connection, since the server knows a caller by
 * the certificate of the handshake; calls under way on the old one may end first. A refusal that concerns the agent itself
 * (its `reason`) is reported once, here, whoever made the call.
 */
import { Fault } from '../src/errors.ts';
import type { Clock } from '../src/run/clock.ts';
import type { ServerApi } from './server-api.ts';
import type { NodeRecord } from './state.ts';

export interface OpenApi extends ServerApi {
  /** The server has accepted the connection and not answered on it. */
  readonly isWaiting: boolean;
  /** Takes a new connection for the calls that follow. */
  reconnect(): void;
  close(): void;
}

export interface ServerLink {
  /** Runs a call as the attested agent. Throws `state/refused` before there is an agent SVID. */
  call<T>(work: (api: ServerApi) => Promise<T>): Promise<T>;
  /** Runs calls on a connection without a client certificate, as node attestation needs. */
  attesting<T>(work: (api: ServerApi) => Promise<T>): Promise<T>;
  /** From now on calls are made with this SVID, or with none. */
  renewed(node: NodeRecord | undefined): void;
  /**
   * The server does not answer: calls that follow take a new connection. Behind packets that vanish an old one looks alive
   * for as long as TCP repeats itself, a quarter of an hour; behind a balancer for ever.
   */
  reconnect(): void;
  /** Whether the server has accepted the connection and not answered on it: it may have many others to serve first. */
  readonly isWaiting: boolean;
  /** Told after each `renewed` with an SVID. */
  onRenewed(told: () => void): () => void;
  /** Told of a Fault with a reason. */
  onDenied(told: (fault: Fault) => void): () => void;
  close(): void;
}

/** Milliseconds that calls on a connection have to end after it was replaced. */
const grace = 30_000;

/** @param open opens a connection, with the agent's SVID or without a client certificate */
export function serverLink(clock: Clock, open: (node: NodeRecord | undefined) => OpenApi): ServerLink {
  let current: OpenApi | undefined;
  const retired = new Map<OpenApi, () => void>();
  const renewals = new Set<() => void>();
  const denials = new Set<(fault: Fault) => void>();

  const retire = (api: OpenApi): void => {
    const end = (): void => {
      retired.delete(api);
      api.close();
    };
    retired.set(api, clock.after(grace, end));
  };

  return {
    async call(work) {
      const api = current;
      if (api === undefined) throw new Fault('state/refused', 'the agent is not attested yet', { status: 14 });
      try {
        return await work(api);
      } catch (error) {
        // A refusal on a connection that was replaced meanwhile says nothing of the new one.
        if (error instanceof Fault && error.reason !== undefined && api === current)
          for (const told of [...denials]) told(error);
        throw error;
      }
    },
    async attesting(work) {
      const api = open(undefined);
      try {
        return await work(api);
      } finally {
        api.close();
      }
    },
    renewed(node) {
      if (current !== undefined) retire(current);
      current = node === undefined ? undefined : open(node);
      if (node !== undefined) for (const told of [...renewals]) told();
    },
    reconnect: () => current?.reconnect(),
    get isWaiting() {
      return current?.isWaiting === true;
    },
    onRenewed(told) {
      renewals.add(told);
      return () => renewals.delete(told);
    },
    onDenied(told) {
      denials.add(told);
      return () => denials.delete(told);
    },
    close() {
      for (const [api, cancel] of retired) {
        cancel();
        api.close();
      }
      retired.clear();
      current?.close();
      current = undefined;
    },
  };
}
