/** What is measured, in this order: the state that a row needs is made by it or by one before it. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Event } from '../test/peers/support/program.ts';
import type { Column } from './result.ts';
import { alias, callerSelector, cpuOf, memoryOf, type Side } from './side.ts';

export interface Effort {
  /** Rounds of A B. */
  readonly repeat: number;
  /** How long a load is measured, and runs before that, in seconds. */
  readonly seconds: number;
  readonly warm: number;
  /** Entries in the large table. */
  readonly entries: number;
  /** Changes that are followed to the workload. */
  readonly rounds: number;
}

export interface Row {
  readonly name: string;
  readonly columns: readonly Column[];
  /** The row changes the state of its side, so that a second round would measure something else. */
  readonly once?: true;
  /** Gives a figure for each column. */
  measure(side: Side, effort: Effort): Promise<number[]>;
}

const rate: Column = { name: 'calls', unit: '/s' };
const p50: Column = { name: 'p50', unit: 'ms' };
const p99: Column = { name: 'p99', unit: 'ms' };

/**
 * A row whose figures are read from one run of the load generator. Beside them stands what one call cost both programs
 * together: that hardly changes when something else uses the machine, where rates and times do.
 */
function loaded(name: string, columns: readonly Column[], verb: string, ...flags: string[]): Row {
  return {
    name,
    columns: [...columns, { name: 'CPU a call', unit: 'us' }],
    async measure(side, { seconds, warm }) {
      const cpu = (): number => cpuOf(side.server.program()) + cpuOf(side.agent.program());
      const before = cpu();
      const result: Event = await side.load(verb, '-for', `${seconds}s`, '-warm', `${warm}s`, ...flags);
      const figures = columns.map(({ unit, name }) => (unit === '/s' ? result.rate : result[name]));
      return [...figures, (cpu() - before) / result.calls];
    },
  };
}

/** Memory of both programs after ten seconds of rest, so that what was only in flight is gone. */
const memory = (name: string): Row => ({
  name,
  columns: ['server', 'server private', 'agent', 'agent private'].map((column) => ({ name: column, unit: 'MB' })),
  once: true,
  async measure(side) {
    await pause(10_000);
    return [...memoryOf(side.server.program()), ...memoryOf(side.agent.program())];
  },
});

/** BatchCreateEntry of many entries, each a selector of its own. */
async function create(side: Side, count: number, prefix: string): Promise<Event> {
  return side.load(
    'create-entries',
    '-parent',
    'spiffe://example.org/nobody',
    '-prefix',
    prefix,
    '-count',
    String(count),
  );
}

export const rows: readonly Row[] = [
  {
    name: 'server: start to first answer',
    columns: [{ name: 'time', unit: 'ms' }],
    async measure(side) {
      await side.server.program().stop();
      return [await side.timeTo('answer', () => side.server.launch())];
    },
  },
  {
    name: 'agent: start to first SVID',
    columns: [{ name: 'time', unit: 'ms' }],
    async measure(side) {
      await side.agent.program().stop();
      return [await side.timeTo('first', () => side.agent.launch())];
    },
  },
  memory('memory, fresh and idle'),
  loaded('FetchX509SVID, 1 client', [p50, p99, rate], 'fetch-x509'),
  loaded('FetchX509SVID, 16 clients', [rate, p50, p99], 'fetch-x509', '-clients', '16'),
  loaded('FetchX509SVID, new connection each', [p50, p99], 'fetch-x509', '-fresh'),
  loaded('FetchJWTSVID, 1 client', [p50, p99, rate], 'fetch-jwt'),
  loaded('FetchJWTSVID, 16 clients', [rate, p50, p99], 'fetch-jwt', '-clients', '16'),
  loaded('FetchJWTSVID, new connection each', [p50, p99], 'fetch-jwt', '-fresh'),
  loaded('FetchJWTSVID, new audience each, 8 clients', [rate, p99], 'fetch-jwt', '-clients', '8', '-unique'),
  loaded('ValidateJWTSVID, 1 client', [p50, p99], 'validate-jwt'),
  loaded('MintX509SVID, 8 clients', [rate], 'mint-x509', '-clients', '8', '-id', 'spiffe://example.org/minted'),
  loaded('MintJWTSVID, 8 clients', [rate], 'mint-jwt', '-clients', '8', '-id', 'spiffe://example.org/minted'),
  // 2,500 certificates are under way at any time: in less than three seconds hardly a call would end.
  loaded('BatchNewX509SVID, 50 agents, 50 a call', [{ name: 'SVIDs', unit: '/s' }], 'new-svids', '-for', '3s'),
  {
    name: 'join token and attestation, one by one',
    columns: [{ name: 'agents', unit: '/s' }],
    async measure(side) {
      return [(await side.load('attest', '-count', '200')).rate];
    },
  },
  {
    name: 'entry created to SVID in the stream',
    columns: [p50, { name: 'max', unit: 'ms' }, { name: 'deleted, p50', unit: 'ms' }],
    once: true,
    async measure(side, { rounds }) {
      const count = side.make === 'mutual' ? rounds * 20 : rounds;
      const flags = ['-parent', alias, '-selector', callerSelector, '-prefix', 'propagate', '-rounds', String(count)];
      const { created, deleted } = await side.load('propagate', ...flags);
      return [created.p50, created.max, deleted.p50];
    },
  },
  {
    name: 'BatchCreateEntry, 50 a call',
    columns: [{ name: 'entries', unit: '/s' }],
    async measure(side, { entries }) {
      await side.load('delete-entries', '-prefix', 'create');
      return [(await create(side, entries / 10, 'create')).rate];
    },
  },
  {
    name: 'ListEntries, 1,000 a page, large table',
    columns: [{ name: 'entries', unit: '/s' }],
    async measure(side, { seconds, entries }) {
      const held = (await side.load('count-entries', '-prefix', 'large')).count;
      if (held < entries) await create(side, entries - held, 'large');
      return [(await side.load('list-entries', '-for', `${seconds}s`)).rate];
    },
  },
  {
    name: 'BatchCreateEntry, 50 a call, large table',
    columns: [{ name: 'entries', unit: '/s' }],
    async measure(side) {
      await side.load('delete-entries', '-prefix', 'more');
      return [(await create(side, 500, 'more')).rate];
    },
  },
  memory('memory, after all of this'),
];

/** Users of the workloads that hold streams: no process of this machine is theirs. */
const firstUser = 20_000;

/**
 * What a large node is like, measured with `--scale` alone: for each side 20,000 entries of its agent, and 500 processes,
 * each of another user and so with another identity, that hold a stream open.
 */
export const scaleRows: readonly Row[] = [
  {
    name: '50,000 entries, idle',
    columns: [
      { name: 'server', unit: 'MB' },
      { name: 'server private', unit: 'MB' },
      { name: 'CPU of the server in 20 s', unit: 'ms' },
    ],
    once: true,
    async measure(side) {
      await side.load('create-entries', '-parent', alias, '-batch', '500', '-count', '50000', '-prefix', 'many');
      await pause(30_000);
      const before = cpuOf(side.server.program());
      await pause(20_000);
      const spent = (cpuOf(side.server.program()) - before) / 1_000;
      return [...memoryOf(side.server.program()), spent];
    },
  },
  {
    name: '500 streams, 20,000 entries',
    columns: [
      { name: 'all opened at once, p50', unit: 'ms' },
      { name: 'the last', unit: 'ms' },
      { name: 'new FetchX509SVID, p50', unit: 'ms' },
      { name: 'new FetchX509SVID, p99', unit: 'ms' },
      { name: 'agent', unit: 'MB' },
      { name: 'agent private', unit: 'MB' },
    ],
    once: true,
    async measure(side, { seconds, warm }) {
      const [streams, entries] = [500, 20_000];
      const made = (count: number, ...more: string[]): Promise<Event> =>
        side.load('create-entries', '-parent', alias, '-batch', '500', '-count', String(count), ...more);
      await made(entries - streams, '-prefix', 'scale');
      await made(streams, '-prefix', 'held', '-selector', 'unix:uid:%d', '-first', String(firstUser));
      const holding = await side.hold(streams, firstUser);
      // A program that tidies up when it is left alone may do so.
      await pause(30_000);
      const memory = memoryOf(side.agent.program());
      const fetched = await side.load('fetch-x509', '-fresh', '-for', `${seconds}s`, '-warm', `${warm}s`);
      await holding.end();
      return [holding.opened.p50, holding.opened.max, fetched.p50, fetched.p99, ...memory];
    },
  },
];
