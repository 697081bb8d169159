import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import { storeSuite } from '../../suites/store.ts';

const fileFor = (t: TestContext): string => {
  const dir = mkdtempSync(join(tmpdir(), 'mutual-store-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return join(dir, 'data', 'server.db');
};

storeSuite('sqlite file', {
  durable: true,
  async fresh(t) {
    const url = `sqlite:${fileFor(t)}`;
    return () => openStore({ url });
  },
});

storeSuite('sqlite memory', {
  durable: false,
  async fresh() {
    return () => openStore({ url: 'sqlite::memory:' });
  },
});
