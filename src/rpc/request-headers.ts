/** The headers of a call: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Request-Headers. */
import type { OutgoingHttpHeaders } from 'node:http2';
import { Fault, quote } from '../errors.ts';
import { version } from '../version.ts';

const userAgent = `grpc-mutual/${version}`;

/**
 * @param leftMs milliseconds until the deadline; undefined for none
 * @param metadata see `CallOptions`; throws `input/invalid` for what cannot travel
 */
export function requestHeaders(
  to: { readonly scheme: string; readonly authority: string },
  path: string,
  leftMs: number | undefined,
  metadata: Readonly<Record<string, string>> | undefined,
): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {
    ':method': 'POST',
    ':scheme': to.scheme,
    ':authority': to.authority,
    ':path': path,
    te: 'trailers',
    'content-type': 'application/grpc',
    'user-agent': userAgent,
  };
  if (leftMs !== undefined) headers['grpc-timeout'] = timeout(leftMs);
  if (metadata !== undefined) addMetadata(headers, metadata);
  return headers;
}

/** PROTOCOL-HTTP2.md, "Timeout": at most eight digits and a unit. */
function timeout(ms: number): string {
  const left = Math.max(Math.ceil(ms), 1);
  if (left < 1e8) return `${left}m`;
  if (left < 1e11) return `${Math.ceil(left / 1000)}S`;
  return `${Math.min(Math.ceil(left / 3_600_000), 99_999_999)}H`;
}

function addMetadata(headers: OutgoingHttpHeaders, metadata: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(metadata)) {
    const isBinary = name.endsWith('-bin');
    if (!/^[0-9a-z_.-]+$/.test(name) || name.startsWith('grpc-') || (!isBinary && !/^[ -~]*$/.test(value)))
      throw new Fault('input/invalid', `metadata ${quote(name)} cannot travel in a header`, {
        hint: 'Names are lower-case letters, digits and "_.-", and do not begin with "grpc-"; values are printable ASCII.',
      });
    headers[name] = isBinary ? Buffer.from(value).toString('base64') : value;
  }
}
