/**
 * A server whose keys cannot be had: it does not start, says why in a sentence, and leaves its journal and its key file as
 * they were; when the cause is gone it starts with the authorities it had.
 */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readServerOptions } from '../../server/config.ts';
import { type RunningServer, startServer } from '../../server/server.ts';
import { openStore } from '../../server/store/open.ts';
import { Fault } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import { systemClock } from '../../src/run/clock.ts';
import { systemRandom } from '../../src/run/random.ts';
import { drivenClock } from '../support/clock.ts';
import { type FakeTransit, fakeTransit } from '../support/fake-transit.ts';
import { td } from '../support/server.ts';

interface Case {
  /** Flags of the server as it should be. */
  readonly flags?: Readonly<Record<string, unknown>>;
  /** Breaks it; gives flags that are other ones then. */
  readonly spoil: (at: (name: string) => string, transit: FakeTransit) => Promise<object | void>;
  readonly mend: (at: (name: string) => string, transit: FakeTransit, keys: Buffer | undefined) => Promise<void>;
  readonly says: RegExp;
  readonly code: string;
}

const vault = { keysStore: 'vault' };
const sealed = { keysSealBy: 'passphrase' };
const nothing = async (): Promise<void> => {};
const keyFile = (at: (name: string) => string): string => at('data/keys.json');
const restore = async (at: (name: string) => string, _: FakeTransit, keys: Buffer | undefined): Promise<void> =>
  writeFile(keyFile(at), keys!, { mode: 0o600 });

const cases: Readonly<Record<string, Case>> = {
  'a key manager that is down': {
    flags: vault,
    spoil: (_, transit) => transit.down(),
    mend: (_, transit) => transit.up(),
    says: /^the key store Vault cannot be reached$/,
    code: 'keys/unavailable',
  },
  'a key manager that does not answer': {
    flags: vault,
    async spoil(_, transit) {
      transit.silent = true;
    },
    async mend(_, transit) {
      transit.silent = false;
    },
    says: /^the key store Vault does not answer in \d+ s$/,
    code: 'keys/unavailable',
  },
  'a key manager that answers garbage': {
    flags: vault,
    async spoil(_, transit) {
      transit.answer = { status: 200, body: '<html>' };
    },
    async mend(_, transit) {
      transit.answer = undefined;
    },
    says: /^the key store Vault answered something else than Vault does$/,
    code: 'keys/unavailable',
  },
  'a key manager that knows its token no more': {
    flags: vault,
    async spoil(at, transit) {
      transit.revokeAll();
      await writeFile(at('token'), 'another', { mode: 0o600 });
    },
    async mend(at, transit) {
      transit.addToken('the-token', {});
      await writeFile(at('token'), 'the-token', { mode: 0o600 });
    },
    says: /^the key store Vault refuses /,
    code: 'keys/unavailable',
  },
  'a wrong passphrase': {
    flags: sealed,
    spoil: (at) => writeFile(at('passphrase'), 'another', { mode: 0o600 }),
    mend: (at) => writeFile(at('passphrase'), 'the passphrase', { mode: 0o600 }),
    says: /^the passphrase does not open ".*keys\.json"$/,
    code: 'keys/sealed',
  },
  'no passphrase any more': {
    flags: sealed,
    spoil: async () => ({ keysSealBy: undefined, keysSealPassphraseFile: undefined }),
    mend: nothing,
    says: /^key file ".*keys\.json" is sealed, and nothing was given to open it$/,
    code: 'keys/sealed',
  },
  'a key of a type that is not used': {
    async spoil(at) {
      const { keys } = JSON.parse(await readFile(keyFile(at), 'utf8'));
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-521' });
      for (const name of Object.keys(keys))
        keys[name] = privateKey.export({ format: 'der', type: 'pkcs8' }).toString('base64');
      await writeFile(keyFile(at), JSON.stringify({ keys }), { mode: 0o600 });
    },
    mend: restore,
    says: /^key file ".*keys\.json" is broken: key "[a-z0-9-]+": a key of type "ec secp521r1" cannot be used$/,
    code: 'data/corrupt',
  },
  'a key file that is cut': {
    spoil: async (at) => writeFile(keyFile(at), (await readFile(keyFile(at))).subarray(0, 40), { mode: 0o600 }),
    mend: restore,
    says: /^key file ".*keys\.json" is broken: /,
    code: 'data/corrupt',
  },
};

for (const [what, { flags = {}, spoil, mend, says, code }] of Object.entries(cases)) {
  test(`${what}: no start, a sentence, nothing half made; then all goes on as before`, async (t) => {
    const { at, transit, start, state } = await place(t, flags);
    await (await start()).close();
    const before = await state();
    assert.equal(before.journal.length, 2, 'an X.509 and a JWT authority');
    const keys = flags === vault ? undefined : await readFile(keyFile(at));

    const other = (await spoil(at, transit)) ?? {};
    const spoilt = await state();
    await assert.rejects(start(other), (error: unknown) => {
      assert.ok(error instanceof Fault, String(error));
      assert.match(error.message, says);
      assert.equal(error.code, code);
      return true;
    });
    assert.deepEqual(await state(), spoilt, 'the refused start changed nothing');
    assert.deepEqual(spoilt.journal, before.journal);
    await mend(at, transit, keys);
    await (await start()).close();
    const { journal, bundle } = await state();
    assert.deepEqual([journal, bundle], [before.journal, before.bundle]);
  });

  // What is read from a file needs one.
  if (flags !== vault) continue;
  test(`${what} at the very first start: no authority in the journal, no key, nothing published`, async (t) => {
    const { at, transit, start, state } = await place(t, flags);
    await spoil(at, transit);
    await assert.rejects(start(), { message: says });
    assert.deepEqual(await state(), { journal: [], bundle: undefined, file: undefined });
    assert.equal(transit.keys.size, 0);
    await mend(at, transit, undefined);
    await (await start()).close();
  });
}

async function place(t: TestContext, flags: Readonly<Record<string, unknown>>) {
  const dir = await mkdtemp(join(tmpdir(), 'mutual-keys-'));
  const at = (name: string): string => join(dir, name);
  const transit = await fakeTransit({ clock: systemClock });
  transit.addToken('the-token', {});
  await writeFile(at('token'), 'the-token', { mode: 0o600 });
  await writeFile(at('passphrase'), 'the passphrase', { mode: 0o600 });
  const clock = drivenClock();
  const running: RunningServer[] = [];
  t.after(async () => {
    for (const server of running) await server.close();
    await transit.close();
    await rm(dir, { recursive: true });
  });
  const where =
    flags.keysStore === 'vault'
      ? { keysVaultAddress: transit.address, keysVaultTokenFile: at('token') }
      : flags === sealed
        ? { keysSealPassphraseFile: at('passphrase') }
        : {};
  return {
    at,
    transit,
    async start(other: object = {}): Promise<RunningServer> {
      const given = { trustDomain: td, dataDir: at('data'), listen: '127.0.0.1:0', ...flags, ...where, ...other };
      const { options } = await readServerOptions({ flags: given as never });
      // Time passes only while an answer does not come.
      const passing = setInterval(() => void (transit.silent && clock.advance(1_000)), 20);
      const log = createLog({ level: 'panic', format: 'text', clock, write: () => {} });
      try {
        const server = await startServer(options, { clock, random: systemRandom, log });
        running.push(server);
        return server;
      } finally {
        clearInterval(passing);
      }
    },
    /** What a start could leave behind. */
    async state() {
      const store = await openStore({ url: `sqlite:${at('data/mutual.db')}` });
      const journal = [...(await store.journal.list('x509@')), ...(await store.journal.list('jwt@'))];
      const bundle = await store.bundles.get(td);
      await store.close();
      const file = await readFile(keyFile(at)).catch(() => undefined);
      return { journal, bundle, file };
    },
  };
}
