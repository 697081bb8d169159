/** Bundle maps: the bundles of several trust domains in one document (Trust Domain and Bundle §5). */
import { isJsonObject, type Json, parseJsonObject } from '../crypto/json.ts';
import { Fault, quote } from '../errors.ts';
import type { Bundle } from './bundle.ts';
import { readBundle, supersedes } from './bundle-jwks.ts';
import { parseTrustDomain, type TrustDomain } from './id.ts';

export type BundleMap = ReadonlyMap<TrustDomain, Bundle>;

/** Largest map, characters, and most trust domains in one. */
const longest = 32 * 1024 * 1024;
const mostDomains = 4096;

/**
 * Reads a bundle map. It is all or nothing (TB-18): one bundle that is not valid, a name that is none, or a trust domain
 * that is there twice (TB-15) refuses the whole. Refresh hints inside its bundles are not read (TB-17) and come as 0.
 * Throws `bundle/invalid`.
 */
export function parseBundleMap(text: string): BundleMap {
  if (text.length > longest) throw refused(`it is longer than ${longest} characters`);
  const { trust_domains: domains } = told(() => parseJsonObject(text, 'it'));
  if (!isJsonObject(domains)) throw refused('it has no object "trust_domains"');
  const entries = Object.entries(domains);
  if (entries.length > mostDomains) throw refused(`it has more than ${mostDomains} trust domains`);
  return new Map(entries.map(([name, document]) => member(name, document)));
}

/**
 * What is held after a map was fetched: the world as it says, less what it would take back to a lower sequence (FED-5);
 * or, when it is not valid, the very map held, with why.
 */
export function takeMapUpdate(
  stored: BundleMap,
  fetchedText: string,
): { readonly bundles: BundleMap; readonly refused?: Fault } {
  try {
    const fetched = parseBundleMap(fetchedText);
    const newest = [...fetched].map(([domain, bundle]): [TrustDomain, Bundle] => {
      const held = stored.get(domain);
      return [domain, held === undefined || supersedes(bundle, held) ? bundle : held];
    });
    return { bundles: new Map(newest) };
  } catch (error) {
    if (error instanceof Fault) return { bundles: stored, refused: error };
    throw error;
  }
}

function member(name: string, document: Json): [TrustDomain, Bundle] {
  const trustDomain = told(() => parseTrustDomain(name));
  if (!isJsonObject(document)) throw refused(`the bundle of ${quote(name)} is not an object`);
  const { spiffe_refresh_hint: _, ...rest } = document;
  return [trustDomain, told(() => readBundle(rest, trustDomain))];
}

function told<Value>(read: () => Value): Value {
  try {
    return read();
  } catch (error) {
    throw refused(error instanceof Fault ? error.message : String(error), error);
  }
}

function refused(why: string, cause?: unknown): Fault {
  return new Fault('bundle/invalid', `bundle map is not valid: ${why}`, { cause });
}
