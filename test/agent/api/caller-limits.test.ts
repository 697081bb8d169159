import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict';
import { test } from 'node:test';
import { callerLimits } from '../../../agent/api/caller-limits.ts';
import { refusalLog } from '../../../agent/refusal-log.ts';
import { Fault, Status } from '../../../src/errors.ts';
import { createLog } from '../../../src/log.ts';
import { connectUnix } from '../../../src/rpc/connect.ts';
import type { Call } from '../../../src/rpc/serve.ts';
import { drivenClock } from '../../support/clock.ts';
import { header, startPair } from '../../support/pair.ts';

const call = (uid: number, pid: number): Call => ({
  method: '/SpiffeWorkloadAPI/FetchX509SVID',
  caller: { kind: 'unix', peer: { uid, gid: uid, pid, alive: () => true, close() {} } },
  signal: new AbortController().signal,
  broken: undefined,
  onBroken: () => () => {},
  metadata: () => undefined,
});
const exceeded = (error: unknown): boolean => error instanceof Fault && error.code === 'limit/exceeded';
const wide = { connectionsPerUser: 100, callsPerUser: 100, callsPerSecond: 0 };

test('a user who has its connections gets no more until one ends; another user does', () => {
  const limits = callerLimits({ ...wide, connectionsPerUser: 2 }, drivenClock());
  const leave = limits.admit({ uid: 1 });
  limits.admit({ uid: 1 });
  throws(() => limits.admit({ uid: 1 }), exceeded);
  limits.admit({ uid: 2 });
  leave();
  limits.admit({ uid: 1 });
});

test('calls at a time go by user, and one that was refused takes no place', () => {
  const limits = callerLimits({ ...wide, callsPerUser: 1 }, drivenClock());
  const first = call(1, 10);
  limits.begin(first);
  const second = call(1, 11);
  throws(() => limits.begin(second), exceeded);
  limits.end(second);
  throws(() => limits.begin(call(1, 12)), exceeded);
  limits.begin(call(2, 13));
  limits.end(first);
  limits.begin(call(1, 14));
});

test('calls a second go by process: a burst of one second, then as many as time brings', async () => {
  const clock = drivenClock();
  const limits = callerLimits({ ...wide, callsPerSecond: 5 }, clock);
  const one = (pid: number): void => {
    const it = call(1, pid);
    limits.begin(it);
    limits.end(it);
  };
  for (let count = 0; count < 5; count++) one(10);
  throws(() => one(10), exceeded);
  one(11);
  await clock.advance(200);
  one(10);
  throws(() => one(10), exceeded);
});

test('a storm of refused calls is a line a minute, which says how many were left out', async () => {
  const clock = drivenClock();
  const lines: string[] = [];
  const tell = refusalLog(
    createLog({ level: 'info', format: 'json', clock, write: (line) => lines.push(line) }),
    clock,
  );
  const denied = new Fault('caller/denied', 'no identity issued');
  for (let count = 0; count < 1_000; count++) tell(call(1, count), denied);
  equal(lines.length, 1);
  tell(call(2, 5), denied);
  equal(lines.length, 2, 'another user is another matter');
  await clock.advance(60_000);
  tell(call(1, 7), denied);
  deepEqual(
    lines.map((line) => JSON.parse(line).left_out),
    [undefined, undefined, 999],
  );
});

test('on a real agent: a stream and a connection too many are refused, logged once, and those that are open go on', async (t) => {
  const pair = await startPair(t, { agent: { limitsConnectionsPerUser: 2, limitsCallsPerUser: 2 } });
  await pair.admin.createEntry('/web');
  const stream = pair.watchX509();
  await stream.next();
  const other = connectUnix(pair.agent.socket);
  const third = connectUnix(pair.agent.socket);
  t.after(() => {
    other.close();
    third.close();
  });
  const options = { metadata: header };
  const second = other.stream('SpiffeWorkloadAPI', 'FetchX509SVID', {}, options);
  await second.next();
  await rejects(other.unary('SpiffeWorkloadAPI', 'FetchJWTSVID', { audience: ['db'] }, options), {
    status: Status.RESOURCE_EXHAUSTED,
  });
  for (let count = 0; count < 3; count++)
    await rejects(third.unary('SpiffeWorkloadAPI', 'FetchJWTSVID', { audience: ['db'] }, options), {
      status: Status.UNAVAILABLE,
    });
  const uid = process.getuid?.();
  equal(pair.lines.filter((line) => line.includes('connection refused')).length, 1);
  ok(pair.lines.some((line) => line.includes(`user ${uid} has 2 calls and streams open already`)));
  await second.return?.();
  await pair.admin.createEntry('/later');
  let names: readonly string[] = [];
  while (!names.includes('spiffe://example.org/later')) names = (await stream.next()).map(({ spiffeId }) => spiffeId);
  await stream.close();
});
