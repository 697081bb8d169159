import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Fault } from '../../src/errors.ts';
import { createLog, type LogOptions, logLevels, type RootLog, silentLog } from '../../src/log.ts';
import { drivenClock } from '../support/clock.ts';

function opened(options: Partial<LogOptions> = {}): { log: RootLog; lines: string[] } {
  const lines: string[] = [];
  const clock = drivenClock(Date.UTC(2030, 0, 1));
  return {
    log: createLog({ level: 'info', format: 'json', clock, write: (line) => lines.push(line), ...options }),
    lines,
  };
}

test('an event is one JSON line with its time from the clock', () => {
  const { log, lines } = opened();
  log.info({ id: 'spiffe://a/b', count: 2 }, 'entry created');
  assert.deepEqual(
    lines.map((line) => JSON.parse(line)),
    [{ level: 'info', time: '2030-01-01T00:00:00.000Z', id: 'spiffe://a/b', count: 2, event: 'entry created' }],
  );
  assert.match(lines[0]!, /^[^\n]*\n$/);
});

test('as text it is one line for people', () => {
  const { log, lines } = opened({ format: 'text' });
  log.warn({ id: 'spiffe://a/b', why: 'it is "odd"', fault: new Fault('id/invalid', 'x') }, 'entry refused');
  assert.deepEqual(lines, [
    '2030-01-01T00:00:00.000Z WARN  entry refused id=spiffe://a/b why="it is \\"odd\\"" fault.message=x fault.code=id/invalid\n',
  ]);
});

for (const format of ['json', 'text'] as const) {
  test(`a value cannot forge a line or move the cursor (${format})`, () => {
    const { log, lines } = opened({ format });
    log.info({ a: 'x\n2030 INFO forged', b: '\u001b[2J\u2028\u0085', 'c\nd': 1 }, 'e\nvent');
    assert.equal(lines.length, 1);
    assert.equal(lines[0]!.trimEnd().split(/[\n\r]/).length, 1);
    if (format === 'text') assert.doesNotMatch(lines[0]!.trimEnd(), /[\p{Cc}\u2028]/u);
  });
}

test('fields that are named as parts of the line do not take their place', () => {
  const { log, lines } = opened();
  log.info({ level: 'fatal', time: 'never', event: 'other' }, 'real');
  assert.deepEqual(JSON.parse(lines[0]!), {
    level: 'info',
    time: '2030-01-01T00:00:00.000Z',
    level_: 'fatal',
    time_: 'never',
    event_: 'other',
    event: 'real',
  });
});

test('the level changes for the log and all its children, and goes back to the one at launch', () => {
  const { log, lines } = opened();
  const child = log.child({ part: 'sync' });
  child.debug({}, 'one');
  log.setLevel('debug');
  child.debug({}, 'two');
  log.setLevel('error');
  child.warn({}, 'three');
  assert.equal(log.level, 'error');
  assert.equal(log.launchLevel, 'info');
  log.setLevel();
  assert.equal(log.level, 'info');
  child.info({}, 'four');
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).event),
    ['two', 'four'],
  );
});

for (const [index, level] of logLevels.entries()) {
  test(`at ${level} what is as severe or more is written, and nothing else`, () => {
    const { log, lines } = opened({ level });
    for (const name of ['fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const) log[name]({}, name);
    assert.deepEqual(
      lines.map((line) => JSON.parse(line).event),
      logLevels.slice(1, index + 1),
    );
  });
}

test("a child's fields are on each of its lines, cleaned like any other", () => {
  const { log, lines } = opened();
  log.child({ node: 'n1', token: 'secret' }).child({ call: 'x' }).info({ ms: 3 }, 'done');
  const { node, token, call, ms } = JSON.parse(lines[0]!);
  assert.deepEqual([node, token, call, ms], ['n1', '[hidden]', 'x', 3]);
});

test('a file is appended to, mode 0640 at most, and opened anew after it was moved away', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'mutual-log-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'x.log');
  const { log } = opened({ file, write: undefined as never });
  log.info({}, 'one');
  renameSync(file, `${file}.1`);
  log.info({}, 'two');
  log.reopen();
  log.info({}, 'three');
  log.close();
  const events = (path: string): string[] =>
    readFileSync(path, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).event);
  assert.deepEqual(events(`${file}.1`), ['one', 'two']);
  assert.deepEqual(events(file), ['three']);
  assert.equal(statSync(file).mode & 0o137, 0);
  const again = opened({ file, write: undefined as never }).log;
  again.info({}, 'four');
  again.close();
  assert.deepEqual(events(file), ['three', 'four']);
});

test('a file that cannot be opened is refused with its name and what to do', () => {
  assert.throws(
    () => opened({ file: '/nowhere/at/all/x.log', write: undefined as never }),
    (error) =>
      error instanceof Fault &&
      error.code === 'config/invalid' &&
      /log file "\/nowhere\/at\/all\/x.log" cannot be opened/.test(error.message),
  );
});

test('a reopening that fails does not end the program, and the old file goes on', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'mutual-log-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, 'sub.log');
  const { log } = opened({ file, write: undefined as never });
  renameSync(directory, `${directory}.moved`);
  t.after(() => rmSync(`${directory}.moved`, { recursive: true }));
  log.info({}, 'before');
  log.reopen();
  log.info({}, 'after');
  log.close();
  const text = readFileSync(join(`${directory}.moved`, 'sub.log'), 'utf8');
  assert.deepEqual(
    text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).event),
    ['before', 'after'],
  );
});

test('a full disk does not end the program, hold it up or fill its memory', () => {
  const { log } = opened({ file: '/dev/full', write: undefined as never });
  for (let count = 0; count < 1000; count++) log.info({ note: 'x'.repeat(1000) }, 'lost');
  log.reopen();
  log.close();
  log.info({}, 'after the end');
  log.reopen();
  log.close();
});

test('the silent log takes everything and its children too', () => {
  silentLog.child({ a: 1 }).error({}, 'x');
});
