import { memoryKeys } from '../../../src/keys/memory.ts';
import { keyStoreSuite } from '../../suites/key-store.ts';

keyStoreSuite('memory', { exportable: true }, async () => ({ keys: memoryKeys(), close: async () => {} }));
