/**
 * Where bundles are fetched from, as decisions without a network (Federation §5.2): which URL may be configured, where a
 * redirect may lead, and whom a client must find there. A poll always begins at the configured URL; what a redirect gave
 * is used for that one fetch and not kept (FED-24).
 */
import { Fault, quote } from '../errors.ts';
import type { SpiffeId } from './id.ts';

/** How the server at an endpoint proves itself: by web PKI, or by an X509-SVID with exactly this ID. */
export type EndpointProfile =
  | { readonly kind: 'https_web' }
  | { readonly kind: 'https_spiffe'; readonly endpointSpiffeId: SpiffeId };

/** One hop of a fetch. */
export interface Endpoint {
  readonly url: string;
  readonly profile: EndpointProfile;
}

/** Checks an endpoint's URL: https, no user information, the rest free (FED-12). Gives it as it came. Throws `input/invalid`. */
export function checkEndpointUrl(text: string): string {
  const problem = urlProblem(text);
  if (problem === undefined) return text;
  throw new Fault('input/invalid', `bundle endpoint URL ${quote(text)} is not valid: ${problem}`, {
    hint: 'Write https://HOST[:PORT]/PATH.',
  });
}

/**
 * Where a redirect leads: a URL under the same rules, with the profile unchanged, so that TLS is checked there as it was
 * here and an `https_spiffe` server must show the same SPIFFE ID (FED-19, FED-23). Throws `input/invalid`.
 * @param from the URL that was asked
 * @param to the Location given, absolute or relative to `from`
 */
export function checkRedirect(from: string, to: string, profile: EndpointProfile): Endpoint {
  // A relative target is checked as the client would read it, but user information must be seen before a parser drops it.
  const absolute = /^[A-Za-z][A-Za-z0-9+.-]*:/.test(to) ? to : to.startsWith('//') ? `https:${to}` : resolve(to, from);
  const problem = urlProblem(absolute);
  if (problem === undefined) return { url: absolute, profile };
  throw new Fault('input/invalid', `redirect from ${quote(from)} to ${quote(to)} is refused: ${problem}`, {
    hint: 'A bundle endpoint may redirect to https://HOST[:PORT]/PATH only.',
  });
}

/**
 * Checks whom a client found at an endpoint, the first or one redirected to (FED-23, FED-29): with `https_spiffe` exactly
 * the ID configured. Throws `svid/invalid`.
 * @param presented the ID of the X509-SVID that was shown, verified; undefined when it was a certificate of the web
 */
export function checkEndpointServer({ url, profile }: Endpoint, presented: SpiffeId | undefined): void {
  if (profile.kind === 'https_web' || presented === profile.endpointSpiffeId) return;
  throw new Fault(
    'svid/invalid',
    `the server at ${quote(url)} is ${presented === undefined ? 'without a SPIFFE ID' : quote(presented)}, not ${quote(profile.endpointSpiffeId)}`,
  );
}

const resolve = (to: string, from: string): string =>
  /[\s\\]/.test(to) || !URL.canParse(to, from) ? to : new URL(to, from).href;

function urlProblem(text: string): string | undefined {
  if (!URL.canParse(text)) return 'it is not a URL';
  const url = new URL(text);
  if (url.protocol !== 'https:') return 'its scheme must be https';
  // The parser of the web reads much that is not written as a URL, and drops an empty user: look at the text as well.
  if (/[\s\\]/.test(text)) return 'it contains a space or a backslash';
  const authority = /^https:\/\/([^/?#]+)/i.exec(text)?.[1];
  if (authority === undefined || url.hostname === '') return 'it has no host';
  if (url.username !== '' || url.password !== '' || authority.includes('@'))
    return 'it must not contain user information';
  return undefined;
}
