/**
 * An authority above this server, as a port: it signs our certificate authority and says which roots that leads to. One
 * that holds the bundle of the whole trust domain also takes keys that sign tokens, and gives those of all others.
 * `test/suites/upstream.ts` is what every upstream must pass.
 */
import type { JwtAuthority, X509Authority } from '../../src/spiffe/bundle.ts';
import type { Minted } from './minted.ts';

/** What an upstream holds now. */
export interface UpstreamState {
  readonly x509Authorities: readonly X509Authority[];
  /** Absent where the upstream knows no keys of tokens. */
  readonly jwtAuthorities?: readonly JwtAuthority[];
  readonly witAuthorities?: readonly JwtAuthority[];
}

/** Which keys of tokens. */
export type KeyKind = 'jwt' | 'wit';

export interface Upstream {
  /** As in `upstream.authority`: `disk`. */
  readonly name: string;
  /** Which one of that name: an address, where there may be several. */
  readonly at?: string;
  /**
   * Has a certificate authority signed. What comes back is checked by the caller.
   * @param csr PKCS#10, DER; its subject is unlike that of every other authority, its URI name is the trust domain
   * @param ttl the lifetime wished for, milliseconds
   */
  mint(csr: Buffer, ttl: number, signal: AbortSignal): Promise<Minted>;
  /** What it holds now, asked every few seconds; absent where only `mint` tells. */
  state?(signal: AbortSignal): Promise<UpstreamState>;
  /**
   * Has a key that signs tokens published to the whole trust domain; gives all keys of that kind, or undefined where it takes
   * none of that kind. May be repeated.
   */
  publish?(kind: KeyKind, key: JwtAuthority, signal: AbortSignal): Promise<readonly JwtAuthority[] | undefined>;
  /** Asking costs nothing, so that it is asked again at every look, however often it failed. */
  readonly isLocal?: true;
  close?(): Promise<void> | void;
}
