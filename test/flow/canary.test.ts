/**
 * Keys never leave. Both programs run as processes, as talkative as they can be; what is secret in them is known to the
 * test, and is looked for in all that others can see: logs, arguments, environment, files that are not made to hold keys
 * (all of them where these are sealed), every answer of every API, and what is left of a process that is killed.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { run } from '../../cli/run.ts';
import { journalKeys } from '../../server/authority/journal-keys.ts';
import { openStore } from '../../server/store/open.ts';
import { diskKeys } from '../../src/keys/disk.ts';
import { passphraseWrapper, sealer } from '../../src/keys/seal.ts';
import { connectUnix } from '../../src/rpc/connect.ts';
import { loadService } from '../../src/rpc/load.ts';
import { systemClock } from '../../src/run/clock.ts';
import { systemRandom } from '../../src/run/random.ts';
import { testPorts } from '../cli/support/ports.ts';
import { type Canaries, canaries } from '../support/canary.ts';
import { fakeTransit } from '../support/fake-transit.ts';
import { header } from '../support/pair.ts';
import { folderOf, killAfter } from '../support/programs.ts';
import { api } from '../support/server.ts';

const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));

describe('keys never leave', () => {
  for (const store of ['disk', 'sealed disk', 'vault (a fake Transit)'] as const)
    it(`of a server and an agent with keys on ${store}`, { timeout: 240_000 }, (t) => hunt(t, store));

  it('a key file that is cut, or holds a key of a type that is not used, is refused without a word of it', async (t) => {
    const dir = await folderOf(t, 'mutual-canary-');
    const known = canaries();
    const held = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const other = generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey;
    known.key('a key', held);
    known.key('a P-521 key', other);
    const file = (key: typeof held): string =>
      JSON.stringify({ keys: { a: key.export({ format: 'der', type: 'pkcs8' }).toString('base64') } });
    const path = join(dir, 'keys.json');
    for (const [content, why] of [
      [file(held).slice(0, -3), /is broken/],
      [file(held).replace('"a":"', '"a":"!'), /key "a" is not base64/],
      [file(held).replace('"a":"', '"a":"AAAA'), /key "a" is not a PKCS#8 private key/],
      [file(other), /key "a": a key of type "ec secp521r1" cannot be used/],
    ] as const) {
      await writeFile(path, content, { mode: 0o600 });
      const error = await diskKeys(path).then(
        () => undefined,
        (reason: unknown) => reason as Error,
      );
      assert.match(String(error), why);
      assert.deepEqual(known.foundIn(everythingIn(error)), []);
      assert.deepEqual(known.foundIn(inspect(error)), []);
    }
  });

  it('what is hunted for is found in every form (the test can fail)', () => {
    const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const known = canaries();
    known.key('key', key);
    known.text('token', 'a-token-of-tests');
    const der = key.export({ format: 'der', type: 'pkcs8' });
    const jwk = JSON.stringify(key.export({ format: 'jwk' }));
    const pem = key.export({ format: 'pem', type: 'pkcs8' });
    for (const place of [der, jwk, pem, JSON.stringify(pem), der.toString('hex'), JSON.stringify(der)])
      assert.notDeepEqual(known.foundIn(place), [], String(place));
    for (const shift of [0, 1, 2])
      assert.notDeepEqual(known.foundIn(Buffer.from(`${'x'.repeat(shift)}a-token-of-tests;`).toString('base64')), []);
    assert.deepEqual(known.foundIn('nothing of all that'), []);
  });
});

async function hunt(t: TestContext, store: 'disk' | 'sealed disk' | 'vault (a fake Transit)'): Promise<void> {
  const dir = await folderOf(t, 'mutual-canary-');
  const at = (name: string): string => join(dir, name);
  const known = canaries();
  const secretFile = async (what: string): Promise<string> => {
    const secret = `canary-${what.replaceAll(' ', '-')}-${systemRandom.uuid()}`;
    known.text(what, secret);
    await writeFile(at(what), `${secret}\n`, { mode: 0o600 });
    return secret;
  };
  const sealed = store === 'sealed disk';
  const flags: string[] = [];
  let passphrase = '';
  if (sealed) {
    passphrase = await secretFile('passphrase');
    flags.push('--keys-seal-by', 'passphrase', '--keys-seal-passphrase-file', at('passphrase'));
  }
  const serverFlags = [...flags];
  // Then a key lies in the database, sealed.
  if (sealed) serverFlags.push('--keys-share-jwt');
  if (store.startsWith('vault')) {
    const transit = await fakeTransit({ clock: systemClock });
    t.after(() => transit.close());
    transit.addToken(await secretFile('vault token'), {});
    serverFlags.push('--keys-store', 'vault', '--keys-vault-address', transit.address);
    serverFlags.push('--keys-vault-token-file', at('vault token'));
  }

  const common = ['--trust-domain', 'example.org', '--log-level', 'trace', '--log-format', 'json'];
  const server = start(t, dir, [
    'server',
    'run',
    ...common,
    '--data-dir',
    at('s'),
    '--listen',
    '127.0.0.1:0',
    ...serverFlags,
  ]);
  const [, port] = await server.says(/"listen":"127\.0\.0\.1:(\d+)"/);
  const command = async (...words: string[]): Promise<string> => {
    const ports = testPorts({ directory: dir, env: { MUTUAL_ADMIN_SOCKET: at('s/private/api.sock') } });
    assert.equal(await run(words, ports), 0, ports.printed.err);
    return ports.printed.out;
  };
  await writeFile(at('bundle.pem'), await command('bundle', 'show'));
  // A token that was used is no secret any more: it is part of the node's name. One that is to give a node an alias stands
  // in the alias's entry until then, as with SPIRE, where administrators alone read it.
  const newToken = async (name: string, ...more: string[]): Promise<string> => {
    const token = (await command('token', 'create', ...more)).trim();
    await writeFile(at(name), token, { mode: 0o600 });
    return token;
  };
  await newToken('used', '--spiffe-id', 'spiffe://example.org/node');
  known.text('join token', await newToken('unused'));
  const uid = String(process.getuid?.());
  const entry = ['--spiffe-id', 'spiffe://example.org/web', '--parent-id', 'spiffe://example.org/node'];
  await command('entry', 'create', ...entry, '--selector', `unix:uid:${uid}`);
  const agent = start(t, dir, [
    ...['agent', 'run', ...common, '--data-dir', at('a'), '--server', `127.0.0.1:${port}`],
    ...['--trust-bundle', at('bundle.pem'), '--join-token-file', at('used'), ...flags],
  ]);
  await agent.says(/agent serves/);
  const workload = connectUnix(at('a/public/api.sock'));
  t.after(() => workload.close());
  const updates = workload.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, { metadata: header });
  const { value } = await updates.next();
  const handed = createPrivateKey({ key: value.svids[0].x509_svid_key, format: 'der', type: 'pkcs8' });
  await updates.return?.();
  known.key('key of a workload', handed);

  // The authorities' keys, read as only the server may; a store elsewhere has none to read.
  const seal = sealed ? sealer(passphraseWrapper(passphrase, systemRandom), systemRandom) : undefined;
  if (!store.startsWith('vault')) {
    const keys = await (await diskKeys(at('s/keys.json'), seal)).list();
    assert.ok(keys.length >= (sealed ? 1 : 2));
    for (const key of keys)
      known.key(`key ${key.id}`, createPrivateKey({ key: key.exportPkcs8!(), format: 'der', type: 'pkcs8' }));
  }
  const nodeFile = await readFile(at('a/state/node.json'));
  const node = JSON.parse(
    (seal === undefined ? nodeFile : await seal.open(nodeFile, 'node.json')).toString(),
  ) as object;
  const [pkcs8] = valuesIn(node).filter(isPkcs8);
  assert.ok(pkcs8, 'the key of the agent is in its file');
  known.key('key of the agent', createPrivateKey({ key: Buffer.from(pkcs8, 'base64'), format: 'der', type: 'pkcs8' }));
  assert.ok(known.size >= 4);

  const places = new Map<string, Buffer | string>();
  await askEverything(at('s/private/api.sock'), Object.values(api), places, 'server');
  const ofAgent = ['mutual.agent.v1.Status', 'grpc.health.v1.Health'];
  await askEverything(at('a/private/admin.sock'), ofAgent, places, 'agent');
  for (const words of [
    ['agent', 'list'],
    ['entry', 'list'],
    ['bundle', 'show'],
    ['debug', 'info'],
    ['authority', 'x509', 'show'],
  ])
    for (const form of ['text', 'json'])
      places.set(`mutual ${words.join(' ')} --output ${form}`, await command(...words, '--output', form).catch(String));
  for (const [name, { child }] of Object.entries({ server, agent })) {
    for (const file of ['cmdline', 'environ', 'comm', 'status', 'maps'])
      places.set(`/proc of the ${name}: ${file}`, await readFile(`/proc/${child.pid}/${file}`));
    child.kill('SIGABRT');
    await new Promise((resolve) =>
      (child.exitCode ?? child.signalCode) === null ? child.once('exit', resolve) : resolve(0),
    );
  }
  places.set('log of the server', server.output());
  places.set('log of the agent', agent.output());
  // A file of secrets is for secrets; where it is sealed it is looked through as any other.
  const forKeys = sealed ? [] : ['keys.json', 'node.json', 'svids.json'];
  const given = ['passphrase', 'vault token', 'used', 'unused'];
  for (const path of await filesBelow(dir)) {
    if (forKeys.includes(basename(path))) assert.equal((await stat(path)).mode & 0o077, 0, path);
    else if (!given.includes(basename(path))) places.set(path, await readFile(path));
  }
  assert.ok([...places.keys()].some((path) => path.endsWith('mutual.db')));
  if (seal !== undefined) {
    const database = await openStore({ url: `sqlite:${at('s/mutual.db')}` });
    const shared = await (await journalKeys(database.journal, 'keys@shared', seal)).list();
    await database.close();
    assert.ok(shared.length >= 1);
    for (const key of shared)
      known.key(`shared key ${key.id}`, createPrivateKey({ key: key.exportPkcs8!(), format: 'der', type: 'pkcs8' }));
  }
  assert.ok(
    server.output().includes('server ready') && agent.output().includes('agent serves'),
    'there was a log to look through',
  );
  report(t, known, places);
}

function report(t: TestContext, known: Canaries, places: ReadonlyMap<string, Buffer | string>): void {
  const found = [...places].flatMap(([place, content]) => known.foundIn(content).map((what) => `${what} in ${place}`));
  assert.deepEqual(found, []);
  t.diagnostic(`${known.size} secrets, ${places.size} places`);
}

/** Calls every method that takes one message, with an empty one, and keeps what comes back, refusals too. */
async function askEverything(
  socket: string,
  services: readonly string[],
  places: Map<string, Buffer | string>,
  whose: string,
): Promise<void> {
  const channel = connectUnix(socket);
  let answered = 0;
  for (const service of services) {
    for (const [name, method] of Object.entries(loadService(service))) {
      if (method.requestStream || /^(Shutdown|Watch)$/.test(name)) continue;
      const place = `${whose}: ${service}/${name}`;
      try {
        if (method.responseStream) {
          const stream = channel.stream(service, name, {}, { deadlineMs: 500 });
          places.set(place, everythingIn(await stream.next()));
          await stream.return?.();
        } else places.set(place, everythingIn(await channel.unary(service, name, {}, { deadlineMs: 60_000 })));
        answered++;
      } catch (error) {
        places.set(place, everythingIn(error));
      }
    }
  }
  channel.close();
  assert.ok(answered >= (whose === 'server' ? 12 : 1), `${whose}: ${answered} methods answered`);
}

/** Every text and every byte in a value, what does not print of an error too. */
function everythingIn(value: unknown, seen = new Set<unknown>()): Buffer {
  if (typeof value === 'string') return Buffer.from(`${value}\n`);
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (typeof value !== 'object' || value === null || seen.has(value)) return Buffer.alloc(0);
  seen.add(value);
  const parts = Reflect.ownKeys(value).map((key) => everythingIn((value as Record<PropertyKey, unknown>)[key], seen));
  return Buffer.concat(parts);
}

const valuesIn = (value: unknown): string[] =>
  typeof value === 'string'
    ? [value]
    : typeof value === 'object' && value !== null
      ? Object.values(value).flatMap(valuesIn)
      : [];

function isPkcs8(text: string): boolean {
  try {
    createPrivateKey({ key: Buffer.from(text, 'base64'), format: 'der', type: 'pkcs8' });
    return true;
  } catch {
    return false;
  }
}

async function filesBelow(dir: string): Promise<string[]> {
  const found = await readdir(dir, { recursive: true, withFileTypes: true });
  return found.filter((one) => one.isFile()).map((one) => join(one.parentPath, one.name));
}

interface Program {
  readonly child: ChildProcess;
  output(): string;
  says(pattern: RegExp): Promise<RegExpExecArray>;
}

function start(t: TestContext, cwd: string, words: readonly string[]): Program {
  const child = spawn(process.execPath, [main, ...words], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  killAfter(t, child);
  let output = '';
  const looks = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      for (const look of [...looks]) look();
    });
  return {
    child,
    output: () => output,
    says: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = pattern.exec(output);
          if (found !== null) resolve(found);
        };
        looks.add(look);
        child.once('exit', (code) => reject(new Error(`ended with ${code}:\n${output}`)));
        look();
      }),
  };
}
