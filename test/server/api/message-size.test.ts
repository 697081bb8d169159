import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { openStore } from '../../../server/store/open.ts';
import type { Store, StoredEntry, StoredNode } from '../../../server/store/store.ts';
import { loadService } from '../../../src/rpc/load.ts';
import type { Bundle } from '../../../src/spiffe/bundle.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { parseSelector } from '../../../src/spiffe/selector.ts';
import { draft } from '../../suites/store.ts';
import { type AgentPeer, api, id, type TestServer, testServer } from '../../support/server.ts';

const megabyte = 1_000_000;
const count = 100_000;
const parentId = id('/spire/agent/join_token/t');
const foreign = Array.from({ length: 500 }, (_, i) => parseTrustDomain(`td${i}.test`));

const entries = (): StoredEntry[] =>
  Array.from({ length: count }, (_, i) => ({
    ...draft(`/tenant/${i % 100}/service/${i}`),
    id: `entry-${i}`,
    parentId,
    selectors: [`k8s:ns:tenant-${i % 100}`, `k8s:sa:service-${i}`].map(parseSelector),
    dnsNames: [`service-${i}.tenant-${i % 100}.svc.cluster.local`],
    federatesWith: i < 500 ? [foreign[i]!] : [],
    revision: 0,
    createdAt: 1,
    seq: i + 1,
  }));
const nodes = (): StoredNode[] =>
  Array.from({ length: 20_000 }, (_, i) => ({
    id: id(`/spire/agent/x509pop/${String(i).padStart(40, '0')}`),
    attestationType: 'x509pop',
    serial: '1',
    expiresAt: 4_000_000_000,
    nextSerial: '',
    nextExpiresAt: 0,
    canReattest: true,
    selectors: [`x509pop:subject:cn:node-${i}`, `x509pop:ca:fingerprint:${'0'.repeat(40)}`].map(parseSelector),
    agentVersion: '1.13.3',
    seq: i + 1000,
  }));
const bundles = (): Bundle[] =>
  foreign.map((trustDomain) => ({
    trustDomain,
    x509Authorities: Array.from({ length: 10 }, () => ({ certificate: Buffer.alloc(700, 48), tainted: false })),
    jwtAuthorities: [],
    witAuthorities: [],
    refreshHint: 60,
    sequence: 1n,
  }));

/** A store that says it holds so much: what the server keeps in memory is what counts here. */
async function fullStore(): Promise<Store> {
  const store = await openStore({ url: 'sqlite::memory:' });
  const scanOf =
    <T extends { seq: number }>(all: readonly T[]) =>
    async (after: number, limit: number) =>
      all.filter(({ seq }) => seq > after).slice(0, limit);
  return {
    ...store,
    entries: { ...store.entries, scan: scanOf(entries()) },
    nodes: { ...store.nodes, scan: scanOf(nodes()) },
    bundles: { ...store.bundles, list: async () => [...(await store.bundles.list()), ...bundles()] },
  };
}

describe(`with ${count} entries of one agent, 20000 nodes and 500 bundles`, () => {
  let server: TestServer;
  let agent: AgentPeer;
  // The server is the suite's, and ends with it.
  const ends: (() => Promise<void>)[] = [];
  before(async () => {
    const suite = { after: (end: () => Promise<void>) => ends.push(end) } as unknown as TestContext;
    server = await testServer(suite, { store: await fullStore() });
    agent = await server.attest('t');
  });

  after(async () => {
    for (const end of ends) await end();
  });

  /** Bytes of a message as it was on the wire. */
  const sizeOf = (service: keyof typeof api, method: string, message: object): number =>
    loadService(api[service])[method]!.responseSerialize(message).length;

  for (const [service, method, field, total] of [
    ['entry', 'ListEntries', 'entries', count],
    // Not the agent that attests here: in a log that has all of this, it would come last.
    ['agent', 'ListAgents', 'agents', 20_000],
    ['bundle', 'ListFederatedBundles', 'bundles', 500],
  ] as const) {
    for (const page_size of [0, 1_000_000]) {
      it(`${method} with page_size ${page_size} stays below a megabyte, and its tokens lead to all`, async () => {
        const found = new Set<string>();
        let most = 0;
        let pages = 0;
        for (let token = '', first = true; first || token !== ''; first = false) {
          const page = await server.admin.call(service, method, { page_size, page_token: token });
          most = Math.max(most, sizeOf(service, method, page));
          pages += 1;
          for (const item of page[field]) found.add(JSON.stringify(item.id ?? item.trust_domain));
          token = page.next_page_token;
        }
        assert.equal(found.size, total);
        assert.ok(most < megabyte && pages > 1, `${most} bytes in the largest of ${pages} pages`);
      });
    }
  }

  it('counting counts all', async () => {
    assert.equal((await server.admin.call('entry', 'CountEntries')).count, count);
    assert.equal((await server.admin.call('agent', 'CountAgents')).count, 20_001);
  });

  it('SyncAuthorizedEntries stays below a megabyte, its revisions and its entries', async () => {
    const talk = agent.channel.bidi(api.entry, 'SyncAuthorizedEntries');
    void talk.send({});
    const ids: string[] = [];
    let most = 0;
    const next = async () => {
      const { value } = await talk.responses.next();
      most = Math.max(most, sizeOf('entry', 'SyncAuthorizedEntries', value));
      return value;
    };
    let first = 0;
    for (let more = true; more; ) {
      const page = await next();
      first ||= page.entry_revisions.length;
      for (const revision of page.entry_revisions) ids.push(revision.id);
      more = page.more;
    }
    assert.equal(ids.length, count);
    let got = 0;
    for (let at = 0; at < 20_000; at += first) {
      void talk.send({ ids: ids.slice(at, at + first) });
      for (let more = true; more; ) {
        const page = await next();
        got += page.entries.length;
        more = page.more;
      }
    }
    talk.end();
    assert.ok(got >= 20_000);
    assert.ok(most < megabyte, `${most} bytes`);
  });

  it('a snapshot of Watch is cut into messages below a megabyte', async () => {
    const talk = agent.channel.bidi(api.sync, 'Watch');
    void talk.send({ start: { position: 0, log_id: '' } });
    let [most, got, domains] = [0, 0, 0];
    for await (const message of talk.responses) {
      most = Math.max(most, sizeOf('sync', 'Watch', message));
      got += message.entries.length;
      domains += message.bundles.length;
      if (message.complete) break;
    }
    assert.deepEqual([got, domains], [count, 501]);
    assert.ok(most < megabyte, `${most} bytes`);
  });

  it('GetAuthorizedEntries, which has no pages, is refused rather than sent whole', async () => {
    const fault = await agent.refusal('entry', 'GetAuthorizedEntries');
    assert.equal(fault.code, 'limit/exceeded');
    assert.match(fault.message, /100000 entries do not fit/);
  });
});
