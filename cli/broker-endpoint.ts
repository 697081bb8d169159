/** Where an agent serves brokers: given, or in SPIFFE_BROKER_SOCKET (SPIFFE Broker Endpoint §4). */
import { isIP } from 'node:net';
import { Fault, quote } from '../src/errors.ts';
import type { Ports } from './ports.ts';

export type BrokerEndpoint = { readonly path: string } | { readonly host: string; readonly port: number };

export const brokerVariable = 'SPIFFE_BROKER_SOCKET';

/** A DNS name, or an address, with a port; IPv6 in brackets. */
const authority = /^tcp:\/\/(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)):(\d{1,5})$/;

/** Throws `usage/invalid`. */
export function brokerEndpoint(given: string | undefined, ports: Pick<Ports, 'env'>): BrokerEndpoint {
  const address = given ?? ports.env[brokerVariable];
  const source = given === undefined ? brokerVariable : '--endpoint';
  if (address === undefined || address === '') {
    throw new Fault('usage/invalid', `no broker endpoint is known: neither --endpoint nor ${brokerVariable} is set`, {
      hint: 'Give the one of broker.socket or broker.listen of the agent, such as unix:///run/mutual/broker/api.sock.',
    });
  }
  if (address.startsWith('unix:')) {
    const path = /^unix:(?:\/\/)?(\/[^/?#][^?#]*)$/.exec(address)?.[1];
    if (path !== undefined) return { path };
  } else {
    const found = authority.exec(address);
    const host = found?.[1] ?? found?.[2];
    const port = Number(found?.[3]);
    if (host !== undefined && (found?.[1] === undefined || isIP(host) === 6) && port >= 1 && port <= 65_535) {
      return { host, port };
    }
  }
  throw new Fault('usage/invalid', `the broker endpoint ${quote(address)} (${source}) is not valid`, {
    hint: 'Write unix:///PATH or tcp://HOST:PORT, and nothing behind it.',
  });
}
