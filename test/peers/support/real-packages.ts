/** The SDKs of clouds as they are installed for the tests (tools/peers.ts: cloud-sdks), loaded from there. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { LoadPackage } from '../../../src/keys/load-package.ts';
import { peersCache } from '../../../tools/peers.ts';

const require = createRequire(join(peersCache, 'cloud-sdks', 'package.json'));

export const loadRealPackage: LoadPackage = async (name) => require(name);
