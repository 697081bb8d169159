/**
 * The Go `spire-server` command line against our admin socket: each command runs on its own server and on ours, both
 * prepared alike, and what it prints and how it ends must be the same.
 */

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { after, before, describe } from 'node:test';
import { peerPath } from '../../tools/peers.ts';
import { makeNodeIdentity, type NodeIdentity } from './support/node-identity.ts';
import { normal } from './support/normal.ts';
import { admin, type Make, type Server, startAgent, startServer, writeBundle } from './support/pair.ts';
import { makePlace, type Place } from './support/place.ts';
import { runOk } from './support/program.ts';
import { spireCli } from './support/spire.ts';

interface Side {
  readonly server: Server;
  /** Values that each side has of its own, put where a step says {name}. */
  readonly values: Record<string, string>;
}

interface Step {
  /** The command; `~` stands for a space inside a word, `{name}` for a value of the side. */
  readonly run: string;
  /** Which outputs are compared; a command that changes something runs once. */
  readonly as?: readonly ('pretty' | 'json')[];
  readonly input?: string;
  /** Where we do better on purpose: why. Then only our own result is checked. */
  readonly better?: { readonly because: string; readonly code: number; readonly matches: RegExp };
  /** Takes values for later steps from the JSON output. */
  // biome-ignore lint/suspicious/noExplicitAny: each command has its own shape.
  readonly keep?: (output: any) => Record<string, string>;
  /** What the text still has that is no server's behaviour. */
  readonly but?: (text: string) => string;
}

/** The order of keys in a bundle says nothing. */
function sortedKeys(text: string): string {
  if (!text.startsWith('{"')) return text;
  const bundle = JSON.parse(text);
  for (const list of [bundle.jwt_authorities, bundle.x509_authorities])
    list.sort((a: object, b: object) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  return JSON.stringify(bundle);
}

/** A server counts changes of its own bundle as it likes, and SPIRE's does not tell its hint here. */
const ownBundle = (text: string): string =>
  sortedKeys(text)
    .replace(/"sequence_number":"\d+"/, '"sequence_number":"<n>"')
    .replace(/"refresh_hint":"\d+"/, '"refresh_hint":"<n>"')
    .replace(/"spiffe_sequence": \d+(,\n *"spiffe_refresh_hint": \d+)?/, '"spiffe_sequence": <n>');

const both = ['pretty', 'json'] as const;
const json = ['json'] as const;
const node = 'spiffe://example.org/node';
/** For an authority that is in the wrong state SPIRE answers as for a wrong argument or its own failure. */
const stateError = (text: string): string =>
  text
    .replace(/code = (InvalidArgument|Internal|FailedPrecondition)/, 'code = <refused>')
    .replace(/("revoked_authority":.*"expires_at":)"(0|<epoch>)"/, '$1"<moment>"');
const entry = (rest: string) => `entry create -parentID ${node} ${rest}`;

const entries = `{"entries":[
 {"selectors":[{"type":"unix","value":"uid:1"}],"parent_id":"${node}","spiffe_id":"spiffe://example.org/data-1","entry_id":"data-1","x509_svid_ttl":120},
 {"selectors":[{"type":"unix","value":"uid:2"}],"parent_id":"${node}","spiffe_id":"spiffe://example.org/data-2","entry_id":"data-2","dns_names":["a.test","b.test"],"admin":true,"hint":"two"}]}`;

const revoked = 'an authority that was revoked is none any more, and is not shown as the old one';

const steps: readonly Step[] = [
  { run: 'healthcheck' },
  { run: 'healthcheck -verbose' },

  // entry
  { run: 'entry show', as: both },
  { run: 'entry count', as: both },
  { run: entry('-entryID one -spiffeID spiffe://example.org/one -selector unix:uid:1') },
  { run: entry('-entryID two -spiffeID spiffe://example.org/two -selector unix:uid:2 -selector unix:gid:2'), as: json },
  {
    run: entry(
      '-entryID full -spiffeID spiffe://example.org/full -selector unix:uid:3 -x509SVIDTTL 100 -jwtSVIDTTL 50 -dns a.test -dns b.test -admin -downstream -hint full -entryExpiry 4102444800',
    ),
  },
  { run: entry('-entryID store -spiffeID spiffe://example.org/store -selector store:name:3 -storeSVID'), as: json },
  { run: 'entry create -node -entryID alias -spiffeID spiffe://example.org/alias -selector x509pop:subject:cn:node-1' },
  { run: entry('-spiffeID spiffe://example.org/random-id -selector unix:uid:9') },
  { run: entry('-data -'), input: entries },
  { run: 'entry create -data -', input: entries },
  { run: 'entry create -data -', input: entries.replaceAll('data-', 'more-'), as: json },
  { run: entry('-entryID one -spiffeID spiffe://example.org/other -selector unix:uid:1') },
  { run: entry('-spiffeID spiffe://example.org/one -selector unix:uid:1') },
  { run: entry('-spiffeID spiffe://example.org/one -selector unix:uid:1'), as: json },
  { run: entry('-spiffeID spiffe://other.org/one -selector unix:uid:1') },
  { run: entry('-spiffeID spiffe://example.org/spire/server -selector unix:uid:1') },
  { run: entry('-spiffeID spiffe://example.org/bad%20path -selector unix:uid:1') },
  { run: entry('-spiffeID spiffe://example.org/x -selector nocolon') },
  { run: entry('-spiffeID spiffe://example.org/x') },
  { run: entry('-spiffeID spiffe://example.org/x -selector unix:uid:1 -dns -bad-') },
  { run: entry('-spiffeID spiffe://example.org/x -selector unix:uid:8 -dns *.a.test -dns b.a.test') },
  { run: entry('-spiffeID spiffe://example.org/x -selector unix:uid:1 -entryID bad/id') },
  { run: entry('-spiffeID spiffe://example.org/x -selector unix:uid:1 -x509SVIDTTL -1') },
  { run: entry('-spiffeID spiffe://example.org/x -selector unix:uid:7 -federatesWith spiffe://unknown.test') },
  { run: entry('-spiffeID spiffe://example.org/x -selector unix:uid:1 -selector k8s:ns:1 -storeSVID') },
  { run: 'entry create -parentID spiffe://other.org/a -spiffeID spiffe://example.org/x -selector unix:uid:1' },
  { run: 'entry show', as: both },
  { run: 'entry show -entryID full', as: both },
  { run: 'entry show -entryID nowhere', as: both },
  { run: 'entry show -spiffeID spiffe://example.org/one', as: both },
  { run: 'entry show -parentID spiffe://example.org/spire/server', as: both },
  { run: 'entry show -selector unix:uid:2', as: both },
  { run: 'entry show -selector unix:uid:2 -matchSelectorsOn exact' },
  { run: 'entry show -selector unix:uid:2 -selector unix:gid:2 -matchSelectorsOn exact' },
  { run: 'entry show -selector unix:uid:2 -selector unix:uid:3 -matchSelectorsOn any' },
  { run: 'entry show -selector unix:uid:2 -selector unix:gid:2 -selector unix:uid:3 -matchSelectorsOn subset' },
  { run: 'entry show -selector unix:uid:2 -matchSelectorsOn superset' },
  { run: 'entry show -hint full', as: both },
  { run: 'entry show -downstream', as: both },
  { run: 'entry count -downstream', as: both },
  { run: 'entry count -selector unix:uid:2', as: both },
  { run: 'entry count -hint full' },
  {
    run: `entry update -entryID one -parentID ${node} -spiffeID spiffe://example.org/uno -selector unix:uid:11 -hint uno`,
    as: json,
  },
  { run: `entry update -entryID full -parentID ${node} -spiffeID spiffe://example.org/full -selector unix:uid:3` },
  { run: `entry update -entryID nowhere -parentID ${node} -spiffeID spiffe://example.org/x -selector unix:uid:3` },
  { run: `entry update -entryID two -parentID ${node} -spiffeID spiffe://other.org/two -selector unix:uid:3` },
  { run: 'entry show -entryID one', as: both },
  { run: 'entry delete -entryID store' },
  { run: 'entry delete -entryID alias', as: json },
  { run: 'entry delete -entryID nowhere' },
  { run: 'entry delete -file -', input: '{"ids":["data-1","nowhere","data-2"]}' },
  { run: 'entry delete -file -', input: '{"ids":["more-1","more-2"]}', as: json },
  { run: 'entry delete' },
  { run: 'entry count', as: both },

  // token
  { run: 'token generate' },
  { run: 'token generate -ttl 60 -spiffeID spiffe://example.org/by-token', as: both },
  { run: 'token generate -ttl 0' },
  { run: 'token generate -spiffeID spiffe://other.org/by-token' },
  { run: 'token generate -spiffeID spiffe://example.org/spire/agent/x' },

  // agent: two by join token without a process, one by x509pop from a real agent
  { run: 'agent list', as: both },
  { run: 'agent count', as: both },
  { run: 'agent list -attestationType x509pop', as: both },
  { run: 'agent list -attestationType nothing', as: both },
  { run: 'agent list -canReattest true', as: both },
  { run: 'agent list -canReattest false' },
  { run: 'agent list -banned true', as: both },
  { run: 'agent list -selector x509pop:subject:cn:node-1', as: both },
  { run: 'agent list -selector x509pop:subject:cn:node-1 -matchSelectorsOn exact' },
  { run: 'agent list -selector x509pop:subject:cn:node-1 -selector x509pop:nothing -matchSelectorsOn subset' },
  { run: 'agent list -selector x509pop:subject:cn:node-1 -selector x509pop:nothing -matchSelectorsOn any' },
  { run: 'agent list -selector x509pop:subject:cn:node-2' },
  { run: 'agent list -expiresBefore 2100-01-01~00:00:00~+0000~+00' },
  { run: 'agent list -expiresBefore 2000-01-01~00:00:00~+0000~+00', as: both },
  { run: 'agent list -expiresBefore 2000-01-01' },
  { run: 'agent count -attestationType join_token', as: both },
  { run: 'agent count -banned false' },
  { run: 'agent show -spiffeID {pop}', as: both },
  { run: 'agent show -spiffeID {tokenA}', as: both },
  { run: 'agent show -spiffeID spiffe://example.org/spire/agent/none' },
  { run: 'agent show -spiffeID spiffe://example.org/not-an-agent' },
  { run: 'agent show' },
  { run: 'agent ban -spiffeID {tokenA}' },
  { run: 'agent show -spiffeID {tokenA}', as: both },
  { run: 'agent list -banned true', as: both },
  { run: 'agent list -banned false', as: both },
  { run: 'agent ban -spiffeID {tokenB}', as: json },
  { run: 'agent ban -spiffeID spiffe://example.org/spire/agent/none' },
  { run: 'agent evict -spiffeID {tokenA}' },
  { run: 'agent evict -spiffeID {tokenA}' },
  { run: 'agent evict -spiffeID {tokenB}', as: json },
  { run: 'agent purge -expiredFor 720h' },
  { run: 'agent purge -dryRun', as: both },
  { run: 'agent count', as: both },

  // bundle
  { run: 'bundle show', as: both, but: ownBundle },
  { run: 'bundle show -format spiffe', but: ownBundle },
  { run: 'bundle count', as: both },
  { run: 'bundle list', as: both },
  { run: 'bundle set -id spiffe://friend.test -path {dir}/friend.pem' },
  { run: 'bundle set -id spiffe://friend2.test -path {dir}/friend.json -format spiffe', as: json },
  { run: 'bundle set -id spiffe://friend2.test -path {dir}/friend.json -format spiffe' },
  { run: 'bundle set -id spiffe://example.org -path {dir}/friend.pem' },
  { run: 'bundle set -id spiffe://friend.test -path {dir}/nowhere.pem' },
  { run: 'bundle set -id spiffe://friend3.test -path {dir}/friend.pem -format spiffe' },
  { run: 'bundle set -id friend4.test', input: 'no pem at all' },
  { run: 'bundle list', as: both },
  { run: 'bundle list -format spiffe' },
  { run: 'bundle list -id spiffe://friend.test', as: both },
  { run: 'bundle list -id spiffe://friend2.test -format spiffe' },
  { run: 'bundle list -id spiffe://nobody.test' },
  { run: 'bundle count', as: both },
  {
    run: entry(
      '-entryID friend -spiffeID spiffe://example.org/friend -selector unix:uid:5 -federatesWith spiffe://friend.test',
    ),
  },
  {
    run: entry(
      '-entryID friends -spiffeID spiffe://example.org/friends -selector unix:uid:6 -federatesWith friend.test -federatesWith friend2.test',
    ),
    as: json,
  },
  { run: 'entry show -federatesWith friend.test', as: both },
  { run: 'entry show -federatesWith friend.test -matchFederatesWithOn exact' },
  { run: 'entry show -federatesWith friend.test -federatesWith friend2.test -matchFederatesWithOn subset' },
  { run: 'entry show -federatesWith friend2.test -matchFederatesWithOn any' },
  { run: 'entry show -federatesWith nobody.test' },
  { run: 'bundle delete -id spiffe://friend.test' },
  { run: 'bundle delete -id spiffe://friend.test -mode dissociate' },
  {
    run: 'entry show -entryID friend',
    better: {
      because: 'agents fetch only entries whose revision changed: with that of SPIRE they keep the federation for ever',
      code: 0,
      matches: /^Found 1 entry\n(?!.*FederatesWith).*Revision +: 1\n/s,
    },
  },
  { run: 'bundle delete -id spiffe://friend2.test -mode delete', as: json },
  { run: 'entry show -entryID friends' },
  { run: 'bundle delete -id spiffe://nobody.test' },
  { run: 'bundle delete -id spiffe://example.org' },
  { run: 'bundle count' },

  // federation
  { run: 'federation list', as: both },
  {
    run: 'federation create -trustDomain spiffe.test -bundleEndpointURL https://127.0.0.1:9/bundle -bundleEndpointProfile https_spiffe -endpointSpiffeID spiffe://spiffe.test/endpoint -trustDomainBundlePath {dir}/friend.pem',
    as: json,
  },
  {
    run: 'federation create -trustDomain web.test -bundleEndpointURL https://127.0.0.1:9/bundle -bundleEndpointProfile https_web',
  },
  {
    run: 'federation create -trustDomain bad.test -bundleEndpointURL http://127.0.0.1:9/bundle -bundleEndpointProfile https_web',
  },
  {
    run: 'federation create -trustDomain bad.test -bundleEndpointURL https://user:word@127.0.0.1:9/bundle -bundleEndpointProfile https_web',
  },
  {
    run: 'federation create -trustDomain example.org -bundleEndpointURL https://127.0.0.1:9/bundle -bundleEndpointProfile https_web',
  },
  {
    run: 'federation create -trustDomain bad.test -bundleEndpointURL https://127.0.0.1:9/ -bundleEndpointProfile nothing',
  },
  {
    run: 'federation create -trustDomain bad.test -bundleEndpointURL https://127.0.0.1:9/ -bundleEndpointProfile https_spiffe',
  },
  { run: 'federation list', as: both },
  { run: 'federation show -trustDomain web.test', as: both },
  { run: 'federation show -trustDomain spiffe.test', as: both },
  { run: 'federation show -trustDomain nobody.test' },
  {
    run: 'federation update -trustDomain web.test -bundleEndpointURL https://127.0.0.1:9/other -bundleEndpointProfile https_web',
  },
  { run: 'federation show -trustDomain web.test' },
  { run: 'federation refresh -id nobody.test' },
  { run: 'federation delete -id web.test' },
  { run: 'federation delete -id spiffe.test', as: json },
  { run: 'federation delete -id nobody.test' },
  { run: 'federation list' },

  // x509 and jwt
  { run: 'x509 mint -spiffeID spiffe://example.org/minted', as: both },
  { run: 'x509 mint -spiffeID spiffe://example.org/minted -ttl 10m -dns a.test', as: both },
  { run: 'x509 mint -spiffeID spiffe://other.org/minted' },
  { run: 'x509 mint -spiffeID spiffe://example.org' },
  { run: 'x509 mint' },
  { run: 'jwt mint -spiffeID spiffe://example.org/minted -audience a', as: both },
  { run: 'jwt mint -spiffeID spiffe://example.org/minted -audience a -audience b -ttl 10m' },
  { run: 'jwt mint -spiffeID spiffe://example.org/minted' },
  { run: 'jwt mint -spiffeID spiffe://other.org/minted -audience a' },
  { run: 'jwt mint -spiffeID spiffe://example.org/spire/server -audience a' },

  // logger
  { run: 'logger get', as: both },
  { run: 'logger set -level warn' },
  { run: 'logger set -level debug', as: json },
  { run: 'logger set -level noise' },
  { run: 'logger set' },
  { run: 'logger get', as: both },
  { run: 'logger reset', as: both },
  { run: 'logger get' },

  // localauthority: a whole forced rotation of both kinds
  { run: 'localauthority x509 show', keep: (state) => ({ x509First: state.active.authority_id }), as: both },
  { run: 'localauthority x509 activate -authorityID nothing', but: stateError },
  {
    run: 'localauthority x509 prepare',
    keep: (state) => ({ x509Second: state.prepared_authority.authority_id }),
    as: json,
  },
  { run: 'localauthority x509 show', as: both },
  { run: 'localauthority x509 taint -authorityID {x509First}', but: stateError },
  { run: 'localauthority x509 activate -authorityID {x509Second}', but: stateError },
  { run: 'localauthority x509 show' },
  { run: 'localauthority x509 revoke -authorityID {x509First}', but: stateError },
  { run: 'localauthority x509 taint -authorityID {x509Second}', but: stateError },
  { run: 'localauthority x509 taint -authorityID {x509First}', but: stateError },
  { run: 'localauthority x509 taint -authorityID {x509First}', but: stateError },
  { run: 'bundle show', as: json, but: ownBundle },
  { run: 'localauthority x509 revoke -authorityID {x509First}', as: json, but: stateError },
  {
    run: 'localauthority x509 show',
    as: both,
    better: { because: revoked, code: 0, matches: /^(?!.*\{x509First\})/s },
  },
  { run: 'localauthority jwt show', keep: (state) => ({ jwtFirst: state.active.authority_id }), as: both },
  {
    run: 'localauthority jwt prepare',
    keep: (state) => ({ jwtSecond: state.prepared_authority.authority_id }),
    as: json,
  },
  { run: 'localauthority jwt activate -authorityID {jwtFirst}', but: stateError },
  { run: 'localauthority jwt activate -authorityID {jwtSecond}', but: stateError },
  { run: 'localauthority jwt show', as: both },
  { run: 'localauthority jwt revoke -authorityID {jwtFirst}', but: stateError },
  { run: 'localauthority jwt taint -authorityID {jwtFirst}', but: stateError },
  { run: 'bundle show', as: json, but: ownBundle },
  { run: 'localauthority jwt revoke -authorityID {jwtFirst}', as: json, but: stateError },
  { run: 'localauthority jwt taint -authorityID nothing', but: stateError },
  { run: 'localauthority jwt show', better: { because: revoked, code: 0, matches: /^(?!.*\{jwtFirst\})/s } },
  { run: 'upstreamauthority taint -subjectKeyID {x509First}' },
  { run: 'upstreamauthority revoke -subjectKeyID {x509First}' },
  { run: 'bundle show -format spiffe', but: ownBundle },
  { run: 'bundle count' },
];

/** Every command of the program that speaks to a server. */
const commands = [
  ...['create', 'update', 'show', 'count', 'delete'].map((verb) => `entry ${verb}`),
  ...['list', 'count', 'show', 'ban', 'evict', 'purge'].map((verb) => `agent ${verb}`),
  ...['show', 'list', 'set', 'delete', 'count'].map((verb) => `bundle ${verb}`),
  ...['create', 'update', 'list', 'show', 'delete', 'refresh'].map((verb) => `federation ${verb}`),
  ...['x509', 'jwt'].flatMap((kind) =>
    ['show', 'prepare', 'activate', 'taint', 'revoke'].map((verb) => `localauthority ${kind} ${verb}`),
  ),
  ...['get', 'set', 'reset'].map((verb) => `logger ${verb}`),
  ...['taint', 'revoke'].map((verb) => `upstreamauthority ${verb}`),
  ...['token generate', 'x509 mint', 'jwt mint', 'healthcheck'],
];

/** Starts a server with three attested agents and the files that the steps name. */
async function prepare(place: Place, make: Make, name: string, identity: NodeIdentity): Promise<Side> {
  const server = await startServer(make, place, name, { x509popCa: identity.ca, logLevel: 'INFO' });
  const attest = async () => {
    const args = ['attest', '-admin', server.adminSocket, '-server', `127.0.0.1:${server.port}`, '-count', '1'];
    return JSON.parse(await runOk(peerPath('peer-load'), args)).id as string;
  };
  const values: Record<string, string> = { dir: server.dir, tokenA: await attest(), tokenB: await attest() };
  const pop = { key: identity.key, certificate: identity.certificate };
  const agent = await startAgent('spire', place, `${name}-agent`, server, {
    bundle: await writeBundle(server),
    x509pop: pop,
  });
  const { agents } = await admin(server, 'agent', 'list', '-attestationType', 'x509pop');
  values.pop = `spiffe://example.org${agents[0].id.path}`;
  await agent.program().stop();
  return { server, values };
}

describe('the Go spire-server command line prints the same on our server as on its own', () => {
  const place = makePlace();
  const sides: Side[] = [];
  before(async () => {
    // One node attests to both, so that its selectors are the same.
    const node = await makeNodeIdentity(place.path('node'));
    sides.push(...(await Promise.all([prepare(place, 'spire', 'go', node), prepare(place, 'mutual', 'ours', node)])));
    const friend = await makeNodeIdentity(place.path('friend', ''));
    // One file for both, so that only the servers differ.
    const pem = await runOk('openssl', ['x509', '-in', friend.ca]);
    const certificate = new X509Certificate(pem);
    const key = certificate.publicKey.export({ format: 'jwk' });
    const jwk = { ...key, use: 'x509-svid', x5c: [certificate.raw.toString('base64')] };
    const jwks = JSON.stringify({ keys: [jwk], spiffe_sequence: 3, spiffe_refresh_hint: 600 });
    for (const { server } of sides) {
      writeFileSync(join(server.dir, 'friend.pem'), pem);
      writeFileSync(join(server.dir, 'friend.json'), jwks);
    }
  });
  after(() => place.close());

  test('every command has a step', () => {
    const missing = commands.filter((command) => !steps.some((step) => step.run.startsWith(command)));
    assert.deepEqual(missing, []);
  });

  for (const step of steps)
    for (const output of step.as ?? (['pretty'] as const))
      test(`${step.run}${output === 'json' ? ' -output json' : ''}`, async () => {
        const results = await Promise.all(
          sides.map(async ({ server, values }) => {
            const words = step.run
              .split(' ')
              .map((word) => word.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? `{${name}}`).replaceAll('~', ' '));
            const args = output === 'json' ? [...words, '-output', 'json'] : words;
            const { code, stdout, stderr } = await spireCli(server.adminSocket, args, step.input);
            const known = (text: string) =>
              Object.entries(values).reduce((now, [name, value]) => now.replaceAll(value, `{${name}}`), text);
            const but = step.but ?? ((text: string) => text);
            const shown = { code, stdout: but(normal(known(stdout))), stderr: but(normal(known(stderr))) };
            if (step.keep && output === 'json' && code === 0) Object.assign(values, step.keep(JSON.parse(stdout)));
            return shown;
          }),
        );
        const [theirs, mine] = results as [(typeof results)[0], (typeof results)[0]];
        if (step.better) {
          assert.equal(mine.code, step.better.code, step.better.because);
          assert.match(mine.stdout + mine.stderr, step.better.matches, step.better.because);
        } else assert.deepEqual(mine, theirs);
      });
});
