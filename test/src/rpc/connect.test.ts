/** What a client of ours has to load. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

test('a program that only calls others has loaded nothing of grpc-js, with TLS or without', () => {
  const module = fileURLToPath(new URL('../../../src/rpc/connect.ts', import.meta.url));
  const script = `
    const { connectUnix, connectTls } = await import(${JSON.stringify(module)});
    const unix = connectUnix('/nowhere/at/all.sock');
    const tls = connectTls({ path: '/nowhere/at/all.sock', trustDomain: 'a', expect: 'spiffe://a/b', bundle: () => [] });
    for (const channel of [unix, tls]) {
      const said = await channel.unary('SpiffeWorkloadAPI', 'ValidateJWTSVID', {}).catch((error) => error.message);
      console.log(said);
      channel.close();
    }
    const { createRequire } = await import('node:module');
    const loaded = Object.keys(createRequire(${JSON.stringify(module)}).cache);
    console.log(loaded.length > 0, loaded.filter((path) => path.includes('@grpc/grpc-js')).length);`;
  const printed = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  const [unix, tls, loaded] = printed.trim().split('\n');
  for (const said of [unix, tls])
    assert.match(said as string, /^cannot reach "\/nowhere\/at\/all.sock": connect ENOENT/);
  assert.equal(loaded, 'true 0');
});
