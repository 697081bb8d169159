/** Answers of batch calls: a status an item. A command fails when any item failed, whatever its output format. */
import { quote } from '../src/errors.ts';
import type { Message } from './caller.ts';
import type { Ports } from './ports.ts';
import { visible } from './visible.ts';

const codes = [
  'OK',
  'Canceled',
  'Unknown',
  'InvalidArgument',
  'DeadlineExceeded',
  'NotFound',
  'AlreadyExists',
  'PermissionDenied',
  'ResourceExhausted',
  'FailedPrecondition',
  'Aborted',
  'OutOfRange',
  'Unimplemented',
  'Internal',
  'Unavailable',
  'DataLoss',
  'Unauthenticated',
];

/** A gRPC code by name, as in SPIRE's texts. */
export const codeName = (code: number): string => codes[code] ?? String(code);

/** Items whose status is OK. */
export const succeeded = (results: readonly Message[]): Message[] =>
  results.filter((result) => result.status?.code === 0);

/**
 * Prints a line for each item that failed.
 * @param did what was tried, such as `entry not created`
 * @param name what the item is called, by its index
 * @returns the exit code
 */
export function reportFailed(
  results: readonly Message[],
  did: string,
  name: (index: number) => string,
  ports: Ports,
): 0 | 1 {
  let failed = 0;
  for (const [index, { status }] of results.entries()) {
    if (status?.code === 0) continue;
    failed++;
    ports.err(
      `error: ${did}: ${visible(name(index))}: ${quote(status?.message ?? 'no status')} (${codeName(status?.code ?? 2)})\n`,
    );
  }
  if (failed > 0 && results.length > 1) ports.err(`${failed} of ${results.length} failed\n`);
  return failed === 0 ? 0 : 1;
}
