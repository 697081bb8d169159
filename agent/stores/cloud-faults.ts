/** How a store that is a service failed, in the words of an operator. What it said is for the log. */
import { Fault, quote } from '../../src/errors.ts';

export const storeUnreachable = (name: string, detail: unknown, why = 'cannot be reached'): Fault =>
  new Fault('store/unavailable', `the store ${name} ${why}`, {
    hint: 'It is tried again; see that this node may connect to it.',
    detail: String(detail),
    cause: detail,
  });

export const storeRefused = (name: string, doing: string, detail: unknown): Fault =>
  new Fault('store/unavailable', `the store ${name} refuses ${doing}`, {
    hint: 'It is tried again; see what the credentials of the agent may do there.',
    detail: String(detail),
    cause: detail,
  });

export const storeGarbled = (name: string, what: string, detail?: unknown): Fault =>
  new Fault('store/unavailable', `the store ${name} answered ${what}`, {
    hint: 'See that the address given is that of the service.',
    ...(detail !== undefined && { detail: String(detail) }),
  });

/** Something is there that no agent put. @param mark what would say that one did */
export const foreign = (secret: string, mark: string): Fault =>
  new Fault('store/foreign', `the secret ${quote(secret)} is there already, without the mark ${mark}`, {
    hint: 'Give the entry another name of a secret, or put the mark on this one if it may be overwritten.',
  });
