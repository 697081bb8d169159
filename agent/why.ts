/** How a failure stands in one line of the log: an expected one by its text, a defect with everything that is known of it. */
import { Fault } from '../src/errors.ts';

export function why(error: unknown): Record<string, unknown> {
  if (!(error instanceof Fault) || error.code === 'system/failed') return { err: error };
  return {
    why: error.message,
    code: error.code,
    ...(error.reason !== undefined && { reason: error.reason }),
    ...(error.hint !== undefined && { hint: error.hint }),
    ...(error.detail !== undefined && { detail: error.detail }),
  };
}
