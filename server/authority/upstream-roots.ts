/**
 * Roots above this server, tainted and revoked on purpose. A taint has everything below the root issued anew; a revoked
 * root is in no bundle any more and does not come back. What signs below such a root is replaced, on every server.
 */
import { parseCertificate } from '../../src/crypto/certificate.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Log } from '../../src/log.ts';
import type { X509Authority } from '../../src/spiffe/bundle.ts';
import { readSlots } from '../authority/slots.ts';
import type { Journal } from '../store/store.ts';
import type { Authority } from './authority.ts';
import { type DistrustedRoots, rootId } from './distrust.ts';
import type { OwnBundle } from './own-bundle.ts';
import type { X509Signer } from './x509.ts';

export interface UpstreamRoots {
  /** Throws `input/invalid` for what is no root here, `state/refused` for one that this server needs or knows as tainted. */
  taint(id: string): Promise<void>;
  /** Only what is tainted can be revoked. Throws as `taint`. */
  revoke(id: string): Promise<void>;
  /** The same two without the questions, and as often as one likes: for whoever has asked them. */
  ensureTainted(id: string): Promise<void>;
  ensureRevoked(id: string): Promise<void>;
  /** Whether they are taken back by a server above, and not here. */
  readonly areFollowed: boolean;
  /** Leaves and forgets what hangs on tainted and revoked roots. Called every few seconds. */
  heed(): Promise<void>;
}

export interface UpstreamRootsPorts {
  readonly journal: Journal;
  readonly bundle: OwnBundle;
  readonly distrusted: DistrustedRoots;
  readonly x509: Authority<X509Signer>;
  /** Whether the roots are those of a server above, which has the bundle of the whole trust domain. */
  readonly areFollowed: boolean;
  readonly log: Log;
}

export function upstreamRoots(ports: UpstreamRootsPorts): UpstreamRoots {
  const { journal, bundle, distrusted, x509, areFollowed, log } = ports;

  async function find(id: string, done: string): Promise<X509Authority> {
    if (areFollowed) {
      throw new Fault('state/refused', `the roots are those of the server above, so that none can be ${done} here`, {
        hint: `Have it ${done} there: this server follows within seconds.`,
      });
    }
    const { x509Authorities } = await distrusted.read();
    const found = x509Authorities.find(({ certificate }) => rootId(certificate) === id);
    if (!found) {
      const known = x509Authorities.map(({ certificate }) => rootId(certificate)).join(', ');
      throw new Fault('input/invalid', `no root with subject key ID ${quote(id)} is in the bundle`, {
        hint: `Those in the bundle are ${known}.`,
      });
    }
    for (const { name, text } of await journal.list('x509@')) {
      const { active, prepared, old } = readSlots(text, name);
      const own = [active, prepared, old].some((slot) => slot?.id === id && slot.upstream === undefined);
      if (own) {
        throw new Fault(
          'state/refused',
          `${quote(id)} is no upstream authority: server ${quote(name.slice(5))} has its key`,
          {
            hint: `There "mutual authority x509" is the command with which it can be ${done}.`,
          },
        );
      }
    }
    const { active, prepared } = x509.state();
    if (active?.upstream?.id === id) {
      throw new Fault(
        'state/refused',
        `the upstream authority signed the active X.509 authority, so it cannot be ${done}`,
        {
          hint: 'Prepare and activate one below another root first. For that the upstream authority has to sign below another.',
        },
      );
    }
    if (prepared?.upstream?.id === id) {
      throw new Fault(
        'state/refused',
        `the upstream authority signed the prepared X.509 authority, so it cannot be ${done}`,
        {
          hint: 'Prepare another one first, below another root.',
        },
      );
    }
    return found;
  }

  async function ensureTainted(id: string): Promise<void> {
    await bundle.edit((before) =>
      before.x509Authorities.some((one) => !one.tainted && rootId(one.certificate) === id)
        ? {
            ...before,
            x509Authorities: before.x509Authorities.map((one) =>
              rootId(one.certificate) === id ? { ...one, tainted: true } : one,
            ),
          }
        : undefined,
    );
    await heed();
  }

  async function ensureRevoked(id: string): Promise<void> {
    const { x509Authorities } = await distrusted.read();
    const ends = x509Authorities.filter(({ certificate }) => rootId(certificate) === id);
    const until = Math.max(...ends.map(({ certificate }) => parseCertificate(certificate).notAfter));
    if (ends.length > 0) await distrusted.revoke(id, until);
    await heed();
  }

  async function heed(): Promise<void> {
    await distrusted.read();
    const { active, old } = x509.state();
    const oldRoot = old?.upstream?.id;
    const ofOld = oldRoot === undefined ? undefined : distrusted.of(oldRoot);
    if (ofOld === 'tainted') await x509.taintBelow(oldRoot!);
    if (ofOld === 'revoked') await x509.forgetRoot(oldRoot!);
    const root = active?.upstream?.id;
    if (root === undefined || distrusted.of(root) === undefined) return;
    if (await x509.leaveRoot(root))
      log.warn({ upstreamAuthority: root }, `left a ${distrusted.of(root)} upstream authority`);
  }

  return {
    async taint(id) {
      const { tainted } = await find(id, 'tainted');
      if (tainted) {
        throw new Fault('state/refused', `upstream authority ${quote(id)} is already tainted`, {
          hint: 'Revoke it when nothing depends on it.',
        });
      }
      await ensureTainted(id);
      log.warn({ upstreamAuthority: id }, 'upstream authority tainted');
    },
    async revoke(id) {
      const { tainted } = await find(id, 'revoked');
      if (!tainted) {
        throw new Fault('state/refused', `upstream authority ${quote(id)} is not tainted`, { hint: 'Taint it first.' });
      }
      await ensureRevoked(id);
      log.warn({ upstreamAuthority: id }, 'upstream authority revoked');
    },
    ensureTainted,
    ensureRevoked,
    areFollowed,
    heed,
  };
}
