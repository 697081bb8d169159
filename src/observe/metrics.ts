/**
 * Metrics as a port: whoever counts takes a Metrics and does not know who collects. `noMetrics` is the default; the
 * collector of Prometheus is loaded only when somebody listens. The only importer of prom-client.
 */

/** Label values by label name. Values come from small, fixed sets: never an ID, an address or anything a caller chose. */
export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  add(labels?: Labels, by?: number): void;
}
export interface Gauge {
  set(value: number, labels?: Labels): void;
}
export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

/** Names are `snake_case` with their unit; they get the prefix `mutual_`. Asking twice for a name gives the same metric. */
export interface Metrics {
  counter(name: string, help: string, labels?: readonly string[]): Counter;
  gauge(name: string, help: string, labels?: readonly string[]): Gauge;
  /** A gauge that is read when it is collected. */
  measured(name: string, help: string, read: () => number): void;
  /** `buckets` are upper bounds, ascending. */
  histogram(name: string, help: string, buckets: readonly number[], labels?: readonly string[]): Histogram;
}

/** What the HTTP listener serves. */
export interface Collected extends Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

/** Counts nothing. */
export const noMetrics: Metrics = {
  counter: () => ({ add() {} }),
  gauge: () => ({ set() {} }),
  measured() {},
  histogram: () => ({ observe() {} }),
};

/** A collector of its own, with the process's metrics (memory, event loop, descriptors) in it. */
export async function prometheusMetrics(program: 'server' | 'agent', version: string): Promise<Collected> {
  const { default: client } = await import('prom-client');
  const registry = new client.Registry();
  client.collectDefaultMetrics({ register: registry });
  new client.Gauge({
    name: 'mutual_info',
    help: 'The program and its version; always 1.',
    labelNames: ['program', 'version'],
    registers: [registry],
  }).set({ program, version }, 1);
  const known = new Map<string, unknown>();
  const once = <T>(name: string, make: (full: string) => T): T => {
    const found = known.get(name) as T | undefined;
    if (found !== undefined) return found;
    const made = make(`mutual_${name}`);
    known.set(name, made);
    return made;
  };
  const common = (name: string, help: string, labels: readonly string[]) => ({
    name,
    help,
    labelNames: [...labels],
    registers: [registry],
  });
  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    counter: (name, help, labels = []) =>
      once(name, (full) => {
        const counter = new client.Counter(common(full, help, labels));
        return { add: (of = {}, by = 1) => counter.inc(of, by) };
      }),
    gauge: (name, help, labels = []) =>
      once(name, (full) => {
        const gauge = new client.Gauge(common(full, help, labels));
        return { set: (value, of = {}) => gauge.set(of, value) };
      }),
    measured(name, help, read) {
      once(name, (full) => {
        return new client.Gauge({
          ...common(full, help, []),
          collect() {
            this.set(read());
          },
        });
      });
    },
    histogram: (name, help, buckets, labels = []) =>
      once(name, (full) => {
        const histogram = new client.Histogram({ ...common(full, help, labels), buckets: [...buckets] });
        return { observe: (value, of = {}) => histogram.observe(of, value) };
      }),
  };
}
