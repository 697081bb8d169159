/**
 * For a service: who sent a request, by the WIT-SVID and the proof in its headers. Refused are requests that came in the
 * clear, proofs that were seen before, and tokens that live longer than the service wants.
 */
import { Fault, quote } from '../src/errors.ts';
import { systemClock } from '../src/run/clock.ts';
import type { Bundle } from '../src/spiffe/bundle.ts';
import type { TrustDomain } from '../src/spiffe/id.ts';
import { witFromHeaders } from '../src/spiffe/wit-proof.ts';
import { type VerifiedWitSvid, verifyWitSvid } from '../src/spiffe/wit-svid.ts';

/** What is looked at of a request; an IncomingMessage of node:http, node:https and node:http2 has it. */
export interface WitRequest {
  readonly headers: { readonly [name: string]: string | readonly string[] | undefined };
  /** Says whether it is `encrypted`, as a TLSSocket does. */
  readonly socket: object;
}

export interface WitVerifierOptions {
  /** What the service is called by those who ask it: proofs are made for this name. */
  readonly audience: string;
  /** The bundle of a trust domain, if it is trusted; see `openWits`. */
  bundleOf(trustDomain: TrustDomain): Bundle | undefined;
  /** Milliseconds that clocks may differ, 5 s unless told. */
  readonly leeway?: number;
  /** Refuses tokens that live longer, from `nbf` to `exp`, milliseconds; one without `nbf` too (WIT-15). */
  readonly longestLife?: number;
  /** Takes a proof more than once, until it ends. Unless told, once only (WIT-26). */
  readonly allowReplay?: boolean;
  /** Where something in front of the service ends TLS and lets nobody else reach it: requests may come in the clear. */
  readonly behindTls?: boolean;
  /** Milliseconds since the epoch. */
  now?(): number;
}

/** Gives who sent the request. Throws `svid/invalid`; `limit/exceeded` when more proofs are open than can be remembered. */
export type WitVerifier = (request: WitRequest) => Promise<VerifiedWitSvid>;

/** Proofs that have not ended yet. Forgetting one would let it be used again. */
const mostProofs = 1_000_000;

export function witVerifier(options: WitVerifierOptions): WitVerifier {
  const { audience, bundleOf, leeway = 5_000, longestLife, allowReplay, behindTls, now = systemClock.now } = options;
  if (audience === '') throw new Fault('input/invalid', 'the audience of a verifier is empty');
  const used = usedProofs();
  return async (request) => {
    // What came in the clear may have been read, and sent again sooner than by its owner (WIT-27).
    if ((request.socket as { encrypted?: unknown }).encrypted !== true && !behindTls)
      throw refused('it came over a connection without TLS');
    const { token, proof } = witFromHeaders(request.headers);
    if (token === undefined) throw refused('the request has none');
    const at = now();
    const presented = proof === undefined ? undefined : { token: proof, audience };
    const verified = await verifyWitSvid(token, bundleOf, at, presented, leeway);
    if (longestLife !== undefined) checkLife(verified, longestLife);
    if (!allowReplay) used(`${verified.id}\n${verified.proof.id}`, verified.proof.expiresAt + leeway, at);
    return verified;
  };
}

function checkLife({ claims, expiresAt }: VerifiedWitSvid, longest: number): void {
  if (typeof claims.nbf !== 'number')
    throw refused('it does not say since when it is valid, and this service takes none of unknown age');
  const life = expiresAt - claims.nbf * 1000;
  if (life > longest) throw refused(`it lives ${life / 1000} s, and this service takes at most ${longest / 1000} s`);
}

/** Remembers proofs until they have ended. */
function usedProofs(): (name: string, until: number, now: number) => void {
  const known = new Map<string, number>();
  let looked = 0;
  return (name, until, now) => {
    // Ends are at most a minute and the leeway away, so that a look a second keeps the map as small as it can be.
    if (now - looked >= 1_000 || now < looked) {
      looked = now;
      for (const [one, end] of known) if (end <= now) known.delete(one);
    }
    if ((known.get(name) ?? 0) > now) throw refused('its proof was used before');
    if (known.size >= mostProofs)
      throw new Fault('limit/exceeded', `more than ${mostProofs} proofs are open at a time`);
    known.set(name, until);
  };
}

function refused(why: string): Fault {
  return new Fault('svid/invalid', `WIT-SVID is not valid: ${why}`);
}

/** The name a request to this address is for, when nothing else was agreed on: its origin, such as `https://db.example.org`. */
export function audienceOf(url: string | URL): string {
  const { protocol, origin } = new URL(url);
  if (protocol === 'https:') return origin;
  throw new Fault('input/invalid', `${quote(String(url))} is not an address with https`, {
    hint: 'A WIT-SVID and its proof are sent over TLS alone.',
  });
}
