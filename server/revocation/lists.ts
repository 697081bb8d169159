/**
 * The revocation lists of this server's X.509 authorities: each has one from before it is published, signed by its own
 * key, and a new one whenever what is revoked under it has changed. A list is good for as long as its authority: nothing
 * signed under it outlives that, so that servers which are away for long never make a peer refuse for want of a list.
 */
import { parseCertificate } from '../../src/crypto/certificate.ts';
import { prepareIssuer } from '../../src/crypto/certificate-writer.ts';
import { type Crl, parseCrl, type RevokedCertificate, writeCrl } from '../../src/crypto/crl.ts';
import type { Key, KeyStore } from '../../src/keys/key-store.ts';
import type { Log } from '../../src/log.ts';
import type { Clock } from '../../src/run/clock.ts';
import { backdate } from '../../src/spiffe/lifetime.ts';
import type { Slot, Slots } from '../authority/slots.ts';
import type { FollowedWorld } from '../entries/world.ts';
import type { Revocation, Store, StoredCrl } from '../store/store.ts';

export interface RevocationLists {
  /** Signs and stores the list of one authority, if there is none that says the same. */
  publish(slot: Slot, key: Key): Promise<void>;
  /** The same of every authority in these slots; one after the other, and what comes meanwhile is done too. */
  refresh(slots: () => Slots): Promise<void>;
}

export interface ListPorts {
  readonly store: Store;
  readonly world: FollowedWorld;
  readonly keys: KeyStore;
  readonly clock: Clock;
  readonly log: Log;
}

export function revocationLists({ store, world, keys, clock, log }: ListPorts): RevocationLists {
  async function publish(slot: Slot, key: Key): Promise<void> {
    const held = world.crls.get(slot.id);
    const revoked = revokedUnder(slot.id, world.revocations.values());
    if (held !== undefined && saysTheSame(parsed(held), revoked)) return;
    const issuer = prepareIssuer({ certificate: parseCertificate(Buffer.from(slot.material, 'base64')) });
    const number = BigInt(held?.number ?? 0) + 1n;
    const thisUpdate = clock.now() - backdate;
    const parts = { number, thisUpdate, nextUpdate: slot.notAfter, revoked };
    const der = await writeCrl(issuer, parts, (tbs) => key.sign(tbs, 'der'));
    const crl = { authority: slot.id, number: String(number), expiresAt: slot.notAfter, der: der.toString('base64') };
    if (await store.revocations.putCrl(crl)) {
      log.info({ authority: slot.id, number: crl.number, revoked: revoked.length }, 'revocation list signed');
    }
    await world.reach();
  }

  let turn: Promise<void> = Promise.resolve();
  return {
    publish,
    refresh(slots) {
      turn = turn
        .catch(() => {})
        .then(async () => {
          const { active, prepared, old } = slots();
          for (const slot of [active, old, prepared]) {
            if (!slot || slot.notAfter <= clock.now()) continue;
            const key = await keys.get(slot.keyId);
            if (key) await publish(slot, key);
          }
        });
      return turn;
    },
  };
}

/** What stands in the list of an authority: its own serials, and those of which nobody knows the authority. */
export function revokedUnder(authority: string, revocations: Iterable<Revocation>): RevokedCertificate[] {
  const revoked: RevokedCertificate[] = [];
  for (const one of revocations) {
    if (one.kind !== 'serial' || (one.authority !== authority && one.authority !== '')) continue;
    revoked.push({ serial: BigInt(one.value), revokedAt: one.revokedAt });
  }
  return revoked;
}

const saysTheSame = (crl: Crl, revoked: readonly RevokedCertificate[]): boolean =>
  crl.revoked.size === revoked.length && revoked.every(({ serial }) => crl.revoked.has(serial));

const lists = new WeakMap<StoredCrl, Crl>();
/** The list in a record, read once. */
export function parsed(crl: StoredCrl): Crl {
  let list = lists.get(crl);
  if (list === undefined) {
    list = parseCrl(Buffer.from(crl.der, 'base64'));
    lists.set(crl, list);
  }
  return list;
}
