/**
 * JSON over HTTP(S) to one service, with its own roots and client certificate, which the built-in fetch cannot be given.
 * Redirects are not followed: credentials go to the address that was configured and nowhere else.
 */
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';

export interface JsonAnswer {
  readonly status: number;
  /** Undefined when the answer was empty or no JSON object. */
  readonly body: { readonly [name: string]: unknown } | undefined;
}

export interface JsonClient {
  /** Throws what the connection throws, and an Error for an answer that is too long. */
  call(
    method: string,
    path: string,
    options?: {
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: unknown;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<JsonAnswer>;
  close(): void;
}

export interface ClientTls {
  /** PEM; without it the roots of the machine count. */
  readonly ca?: string | undefined;
  /** PEM, leaf first. */
  readonly cert?: string | undefined;
  /** PEM. */
  readonly key?: string | undefined;
}

/** The longest answer taken, bytes. */
const longest = 4 * 1024 * 1024;

/** @param base such as `https://vault.example.org:8200`; a path in it comes before every path */
export function jsonClient(base: string, tls: ClientTls = {}): JsonClient {
  const url = new URL(base);
  const isTls = url.protocol === 'https:';
  const shared = { keepAlive: true, maxSockets: 32 };
  const agent = isTls ? new HttpsAgent({ ...shared, ...defined(tls) }) : new HttpAgent(shared);
  const request = isTls ? httpsRequest : httpRequest;
  const prefix = url.pathname.replace(/\/$/, '');
  return {
    call: (method, path, { headers = {}, body, signal } = {}) =>
      new Promise((resolve, reject) => {
        const text = body === undefined ? undefined : JSON.stringify(body);
        const asked = request(
          {
            agent,
            method,
            protocol: url.protocol,
            hostname: url.hostname.replace(/^\[|\]$/g, ''),
            port: url.port || undefined,
            path: `${prefix}${path}`,
            headers: {
              accept: 'application/json',
              ...(text !== undefined && {
                'content-type': 'application/json',
                'content-length': Buffer.byteLength(text),
              }),
              ...headers,
            },
            ...(signal && { signal }),
          },
          (answer) => {
            const parts: Buffer[] = [];
            let length = 0;
            answer.on('data', (part: Buffer) => {
              length += part.length;
              if (length > longest) answer.destroy(new Error(`an answer of more than ${longest} bytes`));
              else parts.push(part);
            });
            answer.on('error', reject);
            answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: objectIn(Buffer.concat(parts)) }));
          },
        );
        asked.on('error', reject);
        asked.end(text);
      }),
    close: () => agent.destroy(),
  };
}

function objectIn(data: Buffer): { [name: string]: unknown } | undefined {
  try {
    const value: unknown = JSON.parse(data.toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as { [name: string]: unknown })
      : undefined;
  } catch {
    return undefined;
  }
}

function defined<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as Partial<T>;
}
