/** Keys that live and die with the process. */
import { generateKeyAside } from '../crypto/algorithms.ts';
import { heldKey, type Key, type KeyStore } from './key-store.ts';

export function memoryKeys(): KeyStore {
  const keys = new Map<string, Key>();
  return {
    async generate(id, type) {
      const key = heldKey(id, (await generateKeyAside(type)).privateKey);
      keys.set(id, key);
      return key;
    },
    get: async (id) => keys.get(id),
    list: async () => [...keys.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
    async remove(id) {
      keys.delete(id);
    },
  };
}
