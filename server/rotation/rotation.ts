/**
 * One change of signing authorities over all servers of the trust domain, as a document in the store and pure steps over
 * it. The document holds what is wanted (which authority goes, which comes, which step it is); what has been done is read
 * from the authorities' own journals, so that no crash can leave the two apart.
 */
import { Fault, quote } from '../../src/errors.ts';
import type { Slot, Slots } from '../authority/slots.ts';

export const steps = ['prepare', 'activate', 'taint', 'revoke', 'done'] as const;
export type Step = (typeof steps)[number];
export const authorityKinds = ['x509', 'jwt', 'wit'] as const;
export type Kind = (typeof authorityKinds)[number];
export type Mode = 'planned' | 'emergency';

export interface Rotation {
  readonly id: string;
  readonly mode: Mode;
  /** Milliseconds. */
  readonly startedAt: number;
  readonly step: Step;
  /** When the step began, milliseconds. */
  readonly stepAt: number;
  /** When the new authorities began to sign; 0 before. */
  readonly activatedAt: number;
  /** By the name of the authority's journal, `KIND@SERVER`. */
  readonly parts: Readonly<Record<string, Part>>;
  readonly forced: readonly Step[];
  /** The roots are those of a server above, which alone takes them back. */
  readonly keepsRoots?: true;
}

/** One authority that is replaced. */
export interface Part {
  /** The authority that goes. */
  readonly from: string;
  /** The root that it leads to, when it is none. */
  readonly fromRoot?: string;
  /** The one that comes, once it is prepared. */
  readonly next?: string;
  readonly nextRoot?: string;
  /** What was prepared when the rotation began: in an emergency it does not count. */
  readonly before?: string;
  /** Its server did not follow, and an operator went on without it. */
  readonly leftOut?: true;
}

export const kindOf = (document: string): Kind => document.slice(0, document.indexOf('@')) as Kind;
export const holderOf = (document: string): string => document.slice(document.indexOf('@') + 1);

/**
 * Begins: every authority that signs now is to go. Throws `state/refused` when there is none.
 * @param slots of the authorities to replace, by journal
 */
export function begin(
  id: string,
  mode: Mode,
  slots: Readonly<Record<string, Slots>>,
  now: number,
  keepsRoots = false,
): Rotation {
  const parts = Object.fromEntries(
    Object.entries(slots).flatMap(([document, { active, prepared }]): [string, Part][] => {
      if (!active) return [];
      const root = active.upstream && { fromRoot: active.upstream.id };
      return [[document, { from: active.id, ...root, ...(prepared && { before: prepared.id }) }]];
    }),
  );
  if (Object.keys(parts).length === 0) {
    throw new Fault('state/refused', 'there is no authority to rotate', {
      hint: 'This server issues nothing of what was named: "mutual authority x509 show", and jwt or wit, say what it has.',
    });
  }
  const times = { startedAt: now, stepAt: now, activatedAt: 0 };
  return { id, mode, ...times, step: 'prepare', parts, forced: [], ...(keepsRoots && { keepsRoots }) };
}

/**
 * Whether an authority that goes leaves its root in use: its own, or another server's, leads there again, or the root is
 * not ours to take back. Then there is nothing to taint and to revoke, and what it signed stays trusted.
 */
export function staysBelow(rotation: Rotation, { fromRoot }: Part): boolean {
  if (fromRoot !== undefined && rotation.keepsRoots) return true;
  return fromRoot !== undefined && wanted(rotation).some(({ nextRoot }) => nextRoot === fromRoot);
}

/** How many steps an authority's own journal shows as done: 0 none, 1 prepared, 2 activated, 3 tainted, 4 revoked. */
export function stepsDone(rotation: Rotation, part: Part, slots: Slots | undefined): number {
  const { from, next } = part;
  if (next === undefined) return 0;
  if (slots?.prepared?.id === next) return 1;
  const { active, old } = slots ?? {};
  if (active?.id === next && staysBelow(rotation, part)) return 4;
  if (old?.id === from) return old.tainted ? 3 : 2;
  // It signs, or has signed and gone on since: the one before it is in no slot any more.
  return active?.id === next || old?.id === next ? 4 : 0;
}

/** Whether an authority has done what the step asks. */
export function hasDone(rotation: Rotation, part: Part, slots: Slots | undefined): boolean {
  return part.leftOut === true || stepsDone(rotation, part, slots) > Math.min(steps.indexOf(rotation.step), 3);
}

/** The authority that comes is known. Should it have been lost later on, the rotation goes back to that step. */
export function withNext(rotation: Rotation, document: string, { id, upstream }: Slot, now: number): Rotation {
  const part = rotation.parts[document];
  if (!part) return rotation;
  const back = rotation.step === 'prepare' ? {} : ({ step: 'prepare', stepAt: now } as const);
  const { nextRoot: _, ...rest } = part;
  const next = { ...rest, next: id, ...(upstream && { nextRoot: upstream.id }) };
  return { ...rotation, ...back, parts: { ...rotation.parts, [document]: next } };
}

/** In an emergency nothing is won by authorities that stay below their root: they are to be prepared once more. */
export function preparedAgain(rotation: Rotation): Rotation {
  if (rotation.mode !== 'emergency' || rotation.step !== 'prepare' || rotation.keepsRoots) return rotation;
  const parts = Object.entries(rotation.parts);
  if (!parts.some(([, part]) => staysBelow(rotation, part))) return rotation;
  const again = parts.map(([document, part]): [string, Part] => {
    const { next, nextRoot, ...rest } = part;
    const anew = next === undefined ? rest : { ...rest, before: next };
    return [document, parts.some(([, one]) => one.fromRoot === nextRoot) ? anew : part];
  });
  return { ...rotation, parts: Object.fromEntries(again) };
}

/** The step after this one. Authorities in `leftOut` are gone on without. */
export function advanced(rotation: Rotation, now: number, forced: boolean, leftOut: readonly string[]): Rotation {
  const step = steps[steps.indexOf(rotation.step) + 1] ?? 'done';
  const parts = Object.fromEntries(
    Object.entries(rotation.parts).map(([document, part]) => [
      document,
      leftOut.includes(document) ? { ...part, leftOut: true as const } : part,
    ]),
  );
  return {
    ...rotation,
    step,
    stepAt: now,
    activatedAt: step === 'taint' ? now : rotation.activatedAt,
    parts,
    forced: forced ? [...rotation.forced, step] : rotation.forced,
  };
}

/** Names what agents are measured by: it is another one when other authorities come. */
export function goalOf(rotation: Rotation): string {
  const comes = ({ next, nextRoot }: Part): string => [next ?? '', ...(nextRoot ? [nextRoot] : [])].join(' ');
  return [rotation.id, ...Object.values(rotation.parts).map(comes)].join(' ');
}

/** The parts that count. */
export const wanted = (rotation: Rotation): readonly Part[] =>
  Object.values(rotation.parts).filter(({ leftOut }) => leftOut !== true);

/** Reads a stored rotation; undefined for an absent one. Throws `data/corrupt`. */
export function readRotation(text: string | undefined): Rotation | undefined {
  if (text === undefined) return undefined;
  try {
    const rotation = JSON.parse(text) as Rotation;
    const whole =
      typeof rotation.id === 'string' &&
      (rotation.mode === 'planned' || rotation.mode === 'emergency') &&
      steps.includes(rotation.step) &&
      [rotation.startedAt, rotation.stepAt, rotation.activatedAt].every(Number.isFinite) &&
      Array.isArray(rotation.forced) &&
      Object.values(rotation.parts).every(({ from }) => typeof from === 'string');
    if (whole) return rotation;
  } catch {}
  throw new Fault('data/corrupt', `the journal ${quote('rotation')} cannot be read`, {
    hint: 'Restore the database from a backup.',
  });
}
