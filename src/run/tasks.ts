/** A set of running tasks with one end: the first that fails stops the others, and closing waits for all of them. */
export interface Tasks {
  readonly signal: AbortSignal;
  /** Starts a task. It must end soon after its signal is aborted. */
  run(name: string, work: (signal: AbortSignal) => Promise<void>): void;
  /** Stops everything and waits. Never rejects. */
  close(): Promise<void>;
  /** Resolves when closed, rejects with the first failure. */
  readonly ended: Promise<void>;
}

export function tasks(): Tasks {
  const controller = new AbortController();
  const running = new Set<Promise<void>>();
  const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
  ended.catch(() => {});
  return {
    signal: controller.signal,
    ended,
    run(name, work) {
      const task = work(controller.signal).catch((error: unknown) => {
        if (controller.signal.aborted) return;
        const failure = error instanceof Error ? error : new Error(`${name}: ${String(error)}`);
        reject(failure);
        controller.abort(failure);
      });
      running.add(task);
      void task.finally(() => running.delete(task));
    },
    async close() {
      controller.abort(new Error('closing'));
      while (running.size > 0) await Promise.all(running);
      resolve();
    },
  };
}
