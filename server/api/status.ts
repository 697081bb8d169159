/** spire.api.types.Status of one item in a batch. */
import { asFault } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import { itemOk, itemStatus as statusOfItem } from '../../src/rpc/status.ts';

export interface WireStatus {
  code: number;
  message: string;
}

export const ok: WireStatus = itemOk;

/** Runs the work of one item; what it throws becomes that item's status, and the rest of the batch goes on. */
export async function itemStatus<T extends object>(
  log: Log,
  work: () => T | Promise<T>,
): Promise<{ status: WireStatus } & Partial<T>> {
  try {
    return { ...(await work()), status: ok };
  } catch (thrown) {
    return { status: statusOf(thrown, log) } as { status: WireStatus } & Partial<T>;
  }
}

/** The status of something thrown; the unexpected is logged and told as "internal error". */
export function statusOf(thrown: unknown, log: Log): WireStatus {
  const fault = asFault(thrown);
  if (fault.detail) log.error({ code: fault.code, detail: fault.detail }, fault.message);
  return statusOfItem(fault);
}
