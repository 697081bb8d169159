/** Turns at something that several may use beside each other, and one only alone. First come, first served. */

export interface Turns {
  /** Runs beside other shared work, never beside work that is alone. */
  shared<T>(work: () => T | Promise<T>): Promise<T>;
  /** Runs when all that came before has ended; whatever comes later waits. */
  alone<T>(work: () => T | Promise<T>): Promise<T>;
}

export function turns(): Turns {
  /** Settles when the last of those that are alone has ended; never rejects. */
  let lastAlone: Promise<unknown> = Promise.resolve();
  const sharing = new Set<Promise<unknown>>();
  const ended = (work: Promise<unknown>): Promise<unknown> => work.catch(() => {});
  return {
    shared(work) {
      const result = lastAlone.then(work);
      const end: Promise<unknown> = ended(result).then(() => sharing.delete(end));
      sharing.add(end);
      return result;
    },
    alone(work) {
      const result = Promise.all([lastAlone, ...sharing]).then(work);
      lastAlone = ended(result);
      return result;
    },
  };
}
