/** What a store of SVIDs is: a place outside this node where the SVID of an entry is put for whoever may read it there. */
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import type { Settings } from './settings.ts';

/** What is put into a store, together, so that its parts always belong to each other. */
export interface Secret {
  readonly id: SpiffeId;
  /** DER, leaf first. */
  readonly chain: readonly Buffer[];
  /** PKCS#8 DER. */
  readonly pkcs8: Buffer;
  readonly bundle: Bundle;
  readonly federated: readonly Bundle[];
  /** Lists of what is revoked in the own trust domain, DER, for a store that takes them and where each authority has one. */
  readonly crls?: readonly Buffer[];
}

/** Where in a store. */
export interface Place {
  /** One text for one place: two entries that give the same would overwrite each other. */
  readonly key: string;
}

export interface SvidStore<P extends Place = Place> {
  /** The type of the selectors of its entries. */
  readonly name: string;
  /** Lists of what is revoked are put there too. */
  readonly takesCrls?: true;
  /** Reads what an entry says of its place. Throws `input/invalid`. */
  place(settings: Settings): P;
  /**
   * Puts the secret there, in place of an earlier one. Again with the same is the same. Throws `store/unavailable`, and
   * `store/foreign` when something is there that is not an SVID put by an agent.
   */
  put(place: P, secret: Secret, signal: AbortSignal): Promise<void>;
  /** Removes what was put there; nothing there is no fault. Throws as `put`. */
  remove(place: P, signal: AbortSignal): Promise<void>;
  close(): void;
}
