/** Packages that only some installations need: loaded when they are used, and missed with a sentence that says how to get them. */
import { Fault } from '../errors.ts';

/** Loads a package by name; tests put their own in its place. */
// biome-ignore lint/suspicious/noExplicitAny: each user states the few members it needs.
export type LoadPackage = (name: string) => Promise<any>;

export const loadPackage: LoadPackage = (name) => import(name);

/**
 * Loads an optional package. Throws `config/invalid` when it is not there, or cannot be loaded.
 * @param wanted what asks for it, such as `keys.store aws-kms`
 */
export async function loadOptional<T>(load: LoadPackage, name: string, wanted: string): Promise<T> {
  try {
    const loaded = await load(name);
    // A CommonJS package has its members on the default export too, and some only there.
    return (loaded.default === undefined ? loaded : { ...loaded.default, ...loaded }) as T;
  } catch (error) {
    const missing = /^(ERR_)?MODULE_NOT_FOUND$/.test((error as NodeJS.ErrnoException).code ?? '');
    throw new Fault(
      'config/invalid',
      `${wanted} needs the package ${name}, which ${missing ? 'is not installed' : 'cannot be loaded'}`,
      { hint: `Run: npm install ${name}`, detail: String(error), cause: error },
    );
  }
}
