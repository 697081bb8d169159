/** What a call that ended without a status of its own ended with, as gRPC's texts map it. */
import { constants } from 'node:http2';
import { Status, type StatusCode } from '../errors.ts';
import type { CallStatus } from './status.ts';

/** https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md */
const statusOfHttp: Readonly<Record<number, StatusCode>> = {
  400: Status.INTERNAL,
  401: Status.UNAUTHENTICATED,
  403: Status.PERMISSION_DENIED,
  404: Status.UNIMPLEMENTED,
  429: Status.UNAVAILABLE,
  502: Status.UNAVAILABLE,
  503: Status.UNAVAILABLE,
  504: Status.UNAVAILABLE,
};

/** Where HTTP says how it went: a front end has answered, not a gRPC server. */
export const httpEnding = (httpStatus: number): CallStatus => ({
  code: statusOfHttp[httpStatus] ?? Status.UNKNOWN,
  message:
    httpStatus === 200
      ? 'the other end ended the call without a gRPC status'
      : `the other end answered with HTTP status ${httpStatus}`,
});

/** PROTOCOL-HTTP2.md, "Errors": by the code of RST_STREAM. */
const resets: Readonly<Record<number, readonly [StatusCode, string]>> = {
  [constants.NGHTTP2_REFUSED_STREAM]: [Status.UNAVAILABLE, 'the other end refused the stream'],
  [constants.NGHTTP2_CANCEL]: [Status.CANCELLED, 'the other end cancelled the call'],
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: [
    Status.RESOURCE_EXHAUSTED,
    'the other end has too much to do with us (ENHANCE_YOUR_CALM)',
  ],
  [constants.NGHTTP2_INADEQUATE_SECURITY]: [
    Status.PERMISSION_DENIED,
    'the connection is not secure enough for the other end',
  ],
};

/** Where a stream was reset, by which code. */
export function resetEnding(code: number): CallStatus {
  const [status, message] = resets[code] ?? [
    Status.INTERNAL,
    `the other end broke the call off (HTTP/2 error ${code})`,
  ];
  return { code: status, message };
}

/** The stream was given back before the server looked at it. */
export const isRefused = (code: number): boolean => code === constants.NGHTTP2_REFUSED_STREAM;
