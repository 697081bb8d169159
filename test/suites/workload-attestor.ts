/** What every workload attestor must do, run once for each. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { WorkloadMethod } from '../../agent/workload/methods.ts';
import { Fault } from '../../src/errors.ts';
import { parseSelector, selectorSet } from '../../src/spiffe/selector.ts';

export interface WorkloadAttestorUnderTest {
  readonly method: WorkloadMethod;
  /** A process that it knows, and exactly what it says of that. */
  readonly workload: number;
  readonly selectors: readonly string[];
  /** A process of which it has nothing to say; absent where it knows every process. */
  readonly stranger?: number;
  /** Ends that process. */
  end(): void | Promise<void>;
  /** The service it asks, absent where it asks none. */
  readonly service?: {
    /** How often it was asked. */
    asked(): number;
    /** Takes questions and never answers, answers that it failed, or is itself again. */
    set(mood: 'silent' | 'failing' | 'well'): void;
    /** Connections to it that are open. */
    open(): Promise<number>;
  };
  close(): void | Promise<void>;
}

const noAbort = new AbortController().signal;

/** @param make one of its own for each claim */
export function workloadAttestorSuite(name: string, make: () => Promise<WorkloadAttestorUnderTest>): void {
  const claim = (what: string, body: (under: WorkloadAttestorUnderTest) => Promise<void>): void => {
    test(`${name}: ${what}`, async () => {
      const under = await make();
      try {
        await body(under);
      } finally {
        await under.close();
      }
    });
  };

  claim('says everything of its workload and nothing more, each time the same', async (under) => {
    const once = await under.method.attest(under.workload, noAbort);
    assert.deepEqual(selectorSet(once), [...under.selectors].sort());
    assert.equal(new Set(once).size, once.length, 'nothing twice');
    for (const selector of once) assert.equal(parseSelector(selector), selector);
    assert.deepEqual(await under.method.attest(under.workload, noAbort), once);
  });

  claim(
    'has a name, a deadline of at most a minute, and a fingerprint that stays while nothing changes',
    async (under) => {
      assert.match(under.method.name, /^[a-z0-9]+$/);
      assert.ok(under.method.deadline > 0 && under.method.deadline <= 60_000);
      assert.equal(under.method.fingerprint(under.workload), under.method.fingerprint(under.workload));
    },
  );

  claim('says nothing of a process that is none of its, and asks nobody', async (under) => {
    if (under.stranger === undefined) return assert.equal(under.service, undefined);
    assert.deepEqual(await under.method.attest(under.stranger, noAbort), []);
    assert.equal(under.service?.asked() ?? 0, 0);
  });

  claim('a process that is gone has neither selectors nor a fingerprint', async (under) => {
    await under.end();
    await assert.rejects(
      async () => under.method.attest(under.workload, noAbort),
      (fault: Fault) => fault.code === 'thing/missing',
    );
    assert.throws(
      () => under.method.fingerprint(under.workload),
      (fault: Fault) => fault.code === 'thing/missing',
    );
  });

  claim('a service that hangs is left when the deadline aborts, with nothing open', async ({ service, ...under }) => {
    if (service === undefined) return;
    service.set('silent');
    const deadline = new AbortController();
    const late = new Fault('peer/unavailable', 'too late');
    const asked = under.method.attest(under.workload, deadline.signal);
    asked.catch(() => {});
    while (service.asked() === 0) await new Promise(setImmediate);
    deadline.abort(late);
    await assert.rejects(asked, (fault: Fault) => fault === late);
    while ((await service.open()) > 0) await new Promise(setImmediate);
  });

  claim(
    'a service that fails is a fault that names it, and is asked anew once it is well',
    async ({ service, ...under }) => {
      if (service === undefined) return;
      service.set('failing');
      await assert.rejects(
        under.method.attest(under.workload, noAbort),
        (fault: Fault) => fault instanceof Fault && fault.code.startsWith('peer/'),
      );
      service.set('well');
      assert.deepEqual(selectorSet(await under.method.attest(under.workload, noAbort)), [...under.selectors].sort());
      while ((await service.open()) > 0) await new Promise(setImmediate);
    },
  );
}
