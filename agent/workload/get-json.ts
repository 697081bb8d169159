/**
 * One GET to a service of this node, over its Unix socket or TLS with its own roots. Answers are bounded, redirects are not
 * followed, and nothing stays open afterwards.
 */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { Fault, quote } from '../../src/errors.ts';

export interface Tls {
  /** PEM. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** Anybody's certificate will do. */
  readonly trustAnyone?: true;
}

export type Address =
  | { readonly socketPath: string }
  | { readonly host: string; readonly port: number; readonly tls?: Tls };

export interface Question {
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Bytes. */
  readonly most: number;
}

export interface JsonReply {
  readonly status: number;
  readonly body: unknown;
}

/**
 * Throws `peer/unavailable` when nobody answers, `peer/untrusted` for a certificate that does not hold, `limit/exceeded`
 * for too long an answer and `peer/failed` for one of 200 that is no JSON. `service` names the other end in them.
 */
export function getJson(service: string, at: Address, question: Question): Promise<JsonReply> {
  const { path, headers = {}, signal, most } = question;
  const where = 'socketPath' in at ? at.socketPath : `${at.host}:${at.port}`;
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(error instanceof Fault ? error : unreachable(service, where, error));
    const shared = { path, signal, agent: false, headers: { accept: 'application/json', ...headers } } as const;
    const onAnswer = (answer: IncomingMessage): void => {
      const parts: Buffer[] = [];
      let length = 0;
      answer.on('data', (part: Buffer) => {
        length += part.length;
        if (length <= most) parts.push(part);
        else
          answer.destroy(
            new Fault('limit/exceeded', `${service} at ${quote(where)} answers with more than ${most} bytes`),
          );
      });
      answer.on('error', fail);
      answer.on('end', () => {
        const status = answer.statusCode ?? 0;
        try {
          resolve({ status, body: JSON.parse(Buffer.concat(parts).toString('utf8')) });
        } catch (error) {
          if (status !== 200) resolve({ status, body: undefined });
          else
            reject(
              new Fault('peer/failed', `${service} at ${quote(where)} does not answer with JSON`, { cause: error }),
            );
        }
      });
    };
    const asked =
      'socketPath' in at
        ? httpRequest({ ...shared, socketPath: at.socketPath, host: 'localhost' }, onAnswer)
        : at.tls === undefined
          ? httpRequest({ ...shared, host: at.host, port: at.port }, onAnswer)
          : httpsRequest(
              {
                ...shared,
                host: at.host,
                port: at.port,
                minVersion: 'TLSv1.2',
                ...(at.tls.ca === undefined ? {} : { ca: at.tls.ca }),
                ...(at.tls.cert === undefined ? {} : { cert: at.tls.cert }),
                ...(at.tls.key === undefined ? {} : { key: at.tls.key }),
                rejectUnauthorized: at.tls.trustAnyone !== true,
              },
              onAnswer,
            );
    asked.on('error', fail);
    asked.end();
  });
}

/** The codes of OpenSSL's and Node's own checks of a certificate, and of a handshake that the other end refused. */
const untrusted = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|EPROTO)/;

function unreachable(service: string, where: string, error: Error): Fault {
  // An abort carries what the caller gave as its reason.
  if (error.name === 'AbortError' && error.cause instanceof Fault) return error.cause;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (untrusted.test(code)) {
    return new Fault('peer/untrusted', `${service} at ${quote(where)} did not prove itself: ${error.message}`, {
      cause: error,
    });
  }
  return new Fault('peer/unavailable', `${service} at ${quote(where)} cannot be reached: ${error.message}`, {
    cause: error,
  });
}

type Fields = { readonly [name: string]: unknown };

/** A member of a JSON object that is an object itself; an empty one where there is none. */
export function fieldsOf(value: unknown, name?: string): Fields {
  const one = name === undefined ? value : fieldsOf(value)[name];
  return typeof one === 'object' && one !== null && !Array.isArray(one) ? (one as Fields) : {};
}

/** A member that is a text; the empty one where there is none. */
export function textOf(value: unknown, name: string): string {
  const one = fieldsOf(value)[name];
  return typeof one === 'string' ? one : '';
}

/** A member that is a list; an empty one where there is none. */
export function itemsOf(value: unknown, name: string): readonly unknown[] {
  const one = fieldsOf(value)[name];
  return Array.isArray(one) ? one : [];
}
