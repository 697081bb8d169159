/**
 * How far a position of the log has come among the agents of all servers. Each server knows its own streams; whoever is
 * asked puts the question into the store, and the others answer there with their counts while it stands. A server that
 * does not answer is told of, and not waited for.
 */
import { type Clock, sleep } from '../../src/run/clock.ts';
import type { SpiffeId } from '../../src/spiffe/id.ts';
import { readSlots } from '../authority/slots.ts';
import type { Watchers } from '../entries/watchers.ts';
import type { World } from '../entries/world.ts';
import type { Journal } from '../store/store.ts';

/** One server's agents. */
export interface Reached {
  /** Agents with a stream, and those of them that have applied the position. */
  readonly watching: number;
  readonly holding: number;
  /** Agents that only poll, as SPIRE's do: they take no lists. */
  readonly polling: number;
  /** The first of those that watch and do not hold it. */
  readonly behind: readonly SpiffeId[];
}

/** All servers' agents. */
export interface ReachedEverywhere extends Reached {
  /** Attested agents that no server which answered knows: away, or with one that did not. */
  readonly elsewhere: number;
  /** Servers with an authority that has not ended, this one included, and how many of them have answered. */
  readonly servers: number;
  readonly answered: number;
}

export interface Reach {
  /** Tells how things stand at each change, until every agent has the position; ends with the signal too. */
  follow(position: number, signal: AbortSignal): AsyncGenerator<ReachedEverywhere>;
  /** Looks for questions from now on more often, for a while: something was revoked. */
  expect(): void;
  /** Answers the questions of other servers, until the signal. */
  run(signal: AbortSignal): Promise<void>;
}

export interface ReachPorts {
  readonly journal: Journal;
  readonly world: World;
  readonly watchers: Watchers;
  /** Agents that polled this server lately. */
  readonly polling: () => Iterable<SpiffeId>;
  readonly serverName: string;
  readonly clock: Clock;
}

interface Question {
  readonly position: number;
  /** Milliseconds; then nobody listens any more. */
  readonly until: number;
}

interface Answer extends Reached {
  readonly position: number;
}

const questionName = 'reach';
const answerPrefix = 'reach@';
/** Milliseconds between two looks: of whoever asks at its own streams and at the answers, and for questions. */
const lookEvery = { own: 20, answers: 200, expecting: 200, idle: 5_000 } as const;
/** A revocation is followed by questions about it for so long, milliseconds. */
const expectFor = 60_000;
/** A question stands for so long beyond the last look of whoever asks. */
const standsFor = 10_000;
/** Whoever has not answered after this long is taken to be away, milliseconds. */
const answerWithin = 8_000;
const mostNamed = 100;

export function reach(ports: ReachPorts): Reach {
  const { journal, world, watchers, serverName, clock } = ports;
  let expectUntil = 0;
  let wake: () => void = () => {};

  function own(position: number): Reached {
    const followed = new Map<SpiffeId, boolean>();
    for (const { node, applied } of watchers.all())
      followed.set(node.id, (followed.get(node.id) ?? true) && applied >= position);
    const behind = [...followed].flatMap(([id, holds]) => (holds ? [] : [id]));
    let polling = 0;
    for (const agent of ports.polling()) if (!followed.has(agent)) polling++;
    return {
      watching: followed.size,
      holding: followed.size - behind.length,
      polling,
      behind: behind.slice(0, mostNamed),
    };
  }

  /** Agents that a change did not concern do not say how far they are; they are asked once. */
  function announce(position: number): void {
    for (const watcher of watchers.all()) if (watcher.applied < position) watcher.announce();
  }

  async function others(): Promise<string[]> {
    const names: string[] = [];
    for (const { name, text } of await journal.list('x509@')) {
      const server = name.slice(name.indexOf('@') + 1);
      const { active } = readSlots(text, name);
      if (server !== serverName && active && active.notAfter > clock.now()) names.push(server);
    }
    return names;
  }

  async function put(name: string, value: object): Promise<void> {
    const found = await journal.get(name);
    // Whoever was first has asked or answered: it is looked at again in a moment.
    await journal.put(name, JSON.stringify(value), found?.version ?? 0);
  }

  async function ask(position: number): Promise<void> {
    const standing = readQuestion((await journal.get(questionName))?.text);
    const isOpen = standing !== undefined && standing.until > clock.now();
    // Two who ask at a time are both answered by the later position.
    const asked = isOpen ? Math.max(standing.position, position) : position;
    await put(questionName, { position: asked, until: clock.now() + standsFor } satisfies Question);
  }

  async function answers(position: number): Promise<Map<string, Answer>> {
    const found = new Map<string, Answer>();
    for (const { name, text } of await journal.list(answerPrefix)) {
      const answer = readAnswer(text);
      if (answer !== undefined && answer.position >= position) found.set(name.slice(answerPrefix.length), answer);
    }
    return found;
  }

  function together(mine: Reached, rest: readonly Reached[]): Omit<ReachedEverywhere, 'servers' | 'answered'> {
    const all = [mine, ...rest];
    const sum = (of: (one: Reached) => number): number => all.reduce((total, one) => total + of(one), 0);
    const [watching, holding, polling] = [
      sum((one) => one.watching),
      sum((one) => one.holding),
      sum((one) => one.polling),
    ];
    const now = clock.now() / 1000;
    let attested = 0;
    for (const { serial, expiresAt } of world.nodes.values()) if (serial !== '' && expiresAt > now) attested++;
    const behind = all.flatMap((one) => one.behind).slice(0, mostNamed);
    return { watching, holding, polling, behind, elsewhere: Math.max(0, attested - watching - polling) };
  }

  return {
    async *follow(position, signal) {
      const began = clock.now();
      const expected = await others();
      let known = new Map<string, Answer>();
      let [askedAt, lookedAt] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
      let told = '';
      announce(position);
      while (!signal.aborted) {
        if (expected.length > 0 && clock.now() - lookedAt >= lookEvery.answers) {
          if (clock.now() - askedAt >= standsFor / 2) {
            await ask(position);
            askedAt = clock.now();
          }
          known = await answers(position);
          lookedAt = clock.now();
        }
        const answered = expected.filter((name) => known.has(name));
        const rest = answered.map((name) => known.get(name) as Answer);
        const now = together(own(position), rest);
        const everywhere = { ...now, servers: expected.length + 1, answered: answered.length + 1 };
        const text = JSON.stringify(everywhere);
        if (text !== told) yield everywhere;
        told = text;
        const late = answered.length < expected.length && clock.now() - began < answerWithin;
        if (now.holding >= now.watching && !late) return;
        await sleep(clock, lookEvery.own, signal).catch(() => {});
      }
    },
    expect() {
      expectUntil = clock.now() + expectFor;
      wake();
    },
    async run(signal) {
      let given = '';
      let announced = 0;
      while (!signal.aborted) {
        const question = readQuestion((await journal.get(questionName).catch(() => undefined))?.text);
        if (question !== undefined && question.until > clock.now() && world.position >= question.position) {
          if (announced < question.position) announce(question.position);
          announced = question.position;
          const answer: Answer = { position: question.position, ...own(question.position) };
          const text = JSON.stringify(answer);
          // A database that is away is asked again at the next look.
          if (text !== given && (await put(`${answerPrefix}${serverName}`, answer).then(yes, no))) given = text;
        }
        const pause = clock.now() < expectUntil ? lookEvery.expecting : lookEvery.idle;
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        const done = new AbortController();
        await Promise.race([promise, sleep(clock, pause, AbortSignal.any([signal, done.signal]))]);
        done.abort();
      }
    },
  };
}

const yes = (): boolean => true;
const no = (): boolean => false;

function readQuestion(text: string | undefined): Question | undefined {
  const question = parsed(text) as Partial<Question>;
  return [question.position, question.until].every(Number.isFinite) ? (question as Question) : undefined;
}

/** One that cannot be read, of another version perhaps, is none. */
function readAnswer(text: string): Answer | undefined {
  const answer = parsed(text) as Partial<Answer>;
  const numbers = [answer.position, answer.watching, answer.holding, answer.polling];
  return numbers.every(Number.isFinite) && Array.isArray(answer.behind) ? (answer as Answer) : undefined;
}

function parsed(text: string | undefined): object {
  try {
    const value: unknown = JSON.parse(text ?? '{}');
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
