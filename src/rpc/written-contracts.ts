/**
 * The contracts as a build writes them: as code. A program that reads them from descriptions makes objects of every field
 * and compiles functions from text when it starts; here all of that has been done, and what is not used costs nothing.
 * In the sources there are none; a build puts what `writeContracts` gives in this file's place (tools/build.ts).
 */
import type { MessageCodec } from './load.ts';

/** What protobufjs writes for a message: it works on messages that `fromObject` or `decode` has made. */
interface WrittenType {
  fromObject(plain: object): object;
  toObject(message: object, options: object): object;
  encode(message: object): { finish(): Buffer };
  decode(bytes: Uint8Array): object;
}

/** The messages and enums of one package, by full name. */
export interface WrittenPackage {
  readonly enums: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** The type of each field, where it is a message or an enum, and the functions over those and the library. */
  readonly types: Readonly<
    Record<string, readonly [needs: readonly (string | 0)[], make: (...library: never[]) => WrittenType]>
  >;
}

export interface WrittenContracts {
  /** By full name, its methods: request, response, whether each is a stream. */
  readonly services: Readonly<Record<string, Readonly<Record<string, readonly [string, string, boolean, boolean]>>>>;
  /** A file each, read when a message of it is first made. Throws for one that is not there. */
  package(name: string): WrittenPackage;
  /** The part of protobufjs that the functions use. */
  library(): { readonly Reader: unknown; readonly Writer: unknown; readonly util: unknown };
}

export const written: WrittenContracts | undefined = undefined as WrittenContracts | undefined;

/** The package of a message, enum or service: its full name up to the first part that begins with a capital. */
export function packageOf(fullName: string): string {
  const names = fullName.split('.');
  return names
    .slice(
      0,
      names.findIndex((name) => /^[A-Z]/.test(name)),
    )
    .join('.');
}

/** Codecs of the messages in written contracts, each made once and when it is first used, which throws for a name that is not there. */
export function writtenCodecs(
  { package: packageNamed, library }: WrittenContracts,
  options: object,
): (fullName: string) => MessageCodec {
  const made = new Map<string, object>();
  const typeOf = (name: string): object => {
    const known = made.get(name);
    if (known !== undefined) return known;
    const { enums, types } = packageNamed(packageOf(name));
    const values = enums[name];
    if (values !== undefined) {
      const both = namesAndNumbers(values);
      made.set(name, both);
      return both;
    }
    const found = types[name];
    if (found === undefined) throw new Error(`no contract has a message called ${JSON.stringify(name)}`);
    const [needs, make] = found;
    // The list is filled afterwards: a message may contain itself.
    const needed: unknown[] = [];
    const { Reader, Writer, util } = library();
    const type = make(...([needed, Reader, Writer, util] as never[]));
    made.set(name, type);
    for (const each of needs) needed.push(each === 0 ? undefined : typeOf(each));
    return type;
  };
  return (fullName) => {
    let type: WrittenType | undefined;
    const get = (): WrittenType => {
      type ??= typeOf(fullName) as WrittenType;
      return type;
    };
    return {
      encode: (message) => get().encode(get().fromObject(message)).finish(),
      decode: (bytes) => get().toObject(get().decode(bytes), options),
    };
  };
}

/** An enum as the functions look into it: by name, and by number. */
function namesAndNumbers(values: Readonly<Record<string, number>>): object {
  const byNumber = Object.fromEntries(Object.entries(values).map(([name, number]) => [number, name]));
  return { values: Object.assign(Object.create(byNumber), values) };
}
