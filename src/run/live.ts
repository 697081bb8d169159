/**
 * A value that rotates: one writer, many readers. Readers take `value` when they need it (a TLS handshake, a signature)
 * or are told of each new one; they never hold it across a wait.
 */
export interface Live<T> {
  readonly value: T;
  /** Calls `told` at every later change; the returned function ends it. */
  onChange(told: (value: T) => void): () => void;
}

export interface LiveWriter<T> extends Live<T> {
  set(value: T): void;
}

/** Makes a live value. A reader that throws does not keep the others from hearing. */
export function live<T>(initial: T): LiveWriter<T> {
  let current = initial;
  const readers = new Set<(value: T) => void>();
  return {
    get value() {
      return current;
    },
    onChange(told) {
      const reader = (value: T): void => told(value);
      readers.add(reader);
      return () => readers.delete(reader);
    },
    set(value) {
      current = value;
      let failure: unknown;
      for (const reader of [...readers]) {
        try {
          reader(value);
        } catch (error) {
          failure ??= error;
        }
      }
      if (failure !== undefined) throw failure;
    },
  };
}
