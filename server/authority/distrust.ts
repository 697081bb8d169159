/**
 * Roots above this server that nothing new may hang on. Tainted ones stay in the bundle until they are revoked. Revoked
 * ones are remembered in the store until they end, so that neither an upstream authority that still names one nor a
 * server that was away brings it back.
 */
import { authorityId, parseCertificate } from '../../src/crypto/certificate.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Clock } from '../../src/run/clock.ts';
import type { Bundle } from '../../src/spiffe/bundle.ts';
import type { Journal } from '../store/store.ts';
import type { OwnBundle } from './own-bundle.ts';

export type Distrust = 'tainted' | 'revoked';

export interface DistrustedRoots {
  /** What is known of a root, by its subject key id in lower-case hex; as of the last `read`. */
  of(rootId: string): Distrust | undefined;
  /** Reads what this and all other servers were told, and takes revoked roots out of the bundle. Gives the bundle. */
  read(): Promise<Bundle>;
  /** Remembers that a root is revoked. @param until its end, milliseconds */
  revoke(rootId: string, until: number): Promise<void>;
}

/** Names the revoked roots: id to end, milliseconds. */
type Revoked = Readonly<Record<string, number>>;

const documentName = 'revoked-roots';
const mostTries = 50;

export function distrustedRoots(
  { journal, clock }: { readonly journal: Journal; readonly clock: Clock },
  bundle: OwnBundle,
): DistrustedRoots {
  let known: ReadonlyMap<string, Distrust> = new Map();

  async function load(): Promise<{ version: number; revoked: Revoked }> {
    const found = await journal.get(documentName);
    return { version: found?.version ?? 0, revoked: readRevoked(found?.text) };
  }

  async function read(): Promise<Bundle> {
    const { revoked } = await load();
    const now = await bundle.edit((before) => {
      const kept = before.x509Authorities.filter(({ certificate }) => revoked[rootId(certificate)] === undefined);
      return kept.length === before.x509Authorities.length ? undefined : { ...before, x509Authorities: kept };
    });
    const tainted = now.x509Authorities.filter((one) => one.tainted).map(({ certificate }) => rootId(certificate));
    known = new Map([
      ...tainted.map((id) => [id, 'tainted'] as const),
      ...Object.keys(revoked).map((id) => [id, 'revoked'] as const),
    ]);
    return now;
  }

  return {
    of: (id) => known.get(id),
    read,
    async revoke(id, until) {
      for (let tries = 0; tries < mostTries; tries++) {
        const { version, revoked } = await load();
        const now = clock.now();
        const lasting = Object.entries(revoked).filter(([, end]) => end > now);
        const next: Revoked = { ...Object.fromEntries(lasting), [id]: until };
        if (await journal.put(documentName, JSON.stringify(next), version)) {
          await read();
          return;
        }
      }
      throw new Fault(
        'system/failed',
        'the revoked roots could not be written: other servers kept changing them first',
      );
    },
  };
}

/** The id of a root by its certificate. */
export const rootId = (certificate: Buffer): string => authorityId(parseCertificate(certificate));

function readRevoked(text: string | undefined): Revoked {
  if (text === undefined) return {};
  try {
    const revoked = JSON.parse(text) as Revoked;
    if (Object.values(revoked).every(Number.isFinite)) return revoked;
  } catch {}
  throw new Fault('data/corrupt', `the journal ${quote(documentName)} cannot be read`, {
    hint: 'Restore the database from a backup.',
  });
}
