/**
 * What an engine that speaks Docker's API (Docker, Podman) says of the container a process is in: `label:K:V`, `env:K=V`,
 * `image_id` (the image by the name it was started with) and `image_config_digest`. Selectors are of type `docker` for both,
 * as SPIRE has them.
 *
 * The path of a cgroup is only where to begin: the engine names the container's first process, and that process must be in
 * the very cgroup, or the path was made up by somebody.
 */
import { LRUCache } from 'lru-cache';
import { Fault, quote } from '../../src/errors.ts';
import { makeSelector, type Selector } from '../../src/spiffe/selector.ts';
import { type CgroupFiles, type Container, type Find, locate } from './cgroup.ts';
import { fieldsOf, getJson, itemsOf, textOf } from './get-json.ts';
import type { ContainerImage, WorkloadMethod } from './methods.ts';

export interface Engine {
  readonly name: 'docker' | 'podman';
  readonly find: Find;
  /** Where the engine of that container listens; undefined when there is none that is believed. */
  socketOf(container: Container): string | undefined;
  /** API version, such as `1.41`; without it the engine's newest counts. */
  readonly version?: string | undefined;
}

/** Milliseconds for both questions. */
const deadline = 5_000;
/** Containers whose selectors are kept: image, labels and environment never change while a container lives. */
const kept = 1_000;
/** Bytes of one container's description. */
const longest = 4 * 1024 * 1024;
/** A description with more is nobody's work. */
const mostSelectors = 5_000;

export function engineMethod(engine: Engine, cgroups: CgroupFiles): WorkloadMethod {
  const known = new LRUCache<string, Known>({ max: kept });
  const ask = async (socketPath: string, thing: string, signal: AbortSignal): Promise<unknown> => {
    const prefix = engine.version === undefined ? '' : `/v${engine.version}`;
    const path = `${prefix}/${thing}/json`;
    const { status, body } = await getJson(engine.name, { socketPath }, { path, signal, most: longest });
    if (status === 404) return undefined;
    if (status === 200) return body;
    throw new Fault(
      'peer/failed',
      `${engine.name} at ${quote(socketPath)} answers ${status} for ${quote(thing.slice(0, thing.indexOf('/')))}`,
      {
        detail: textOf(body, 'message').slice(0, 200),
      },
    );
  };

  return {
    name: engine.name,
    deadline,
    fingerprint: (pid) => cgroups.of(pid),
    attest: async (pid, signal) => (await lookUp(pid, signal))?.selectors ?? [],
    async image(pid, signal) {
      const found = await lookUp(pid, signal);
      if (found === undefined) return undefined;
      found.image ??= await imageOf(found, signal);
      return found.image;
    },
  };

  /** The container of a process; undefined when it is in none of the engine's. */
  async function lookUp(pid: number, signal: AbortSignal): Promise<Known | undefined> {
    const container = locate(cgroups.of(pid), cgroups.own, engine.find);
    if (container === undefined) return undefined;
    const { id, place } = container;
    const before = known.get(place);
    if (before !== undefined) return before;
    const socket = engine.socketOf(container);
    if (socket === undefined) return undefined;
    const first = await ask(socket, `containers/${id}`, signal);
    // Somebody else's container, such as containerd's.
    if (first === undefined) return undefined;
    if (textOf(first, 'Id') !== id)
      throw new Fault('peer/failed', `${engine.name} at ${quote(socket)} describes another container than asked for`);
    const init = firstProcess(first);
    if (init === undefined) throw new Fault('state/refused', `container ${id} is not running, but a process is in it`);
    const there = placeOf(init);
    // Asked again: had it ended meanwhile, its pid might by now be of a process in the cgroup that was made up.
    const isSame = firstProcess(await ask(socket, `containers/${id}`, signal)) === init;
    if (there === undefined || !isSame) {
      throw new Fault('state/refused', `the first process of container ${id} cannot be seen`, {
        hint: 'The agent has to run in the pid namespace of the host.',
      });
    }
    if (there !== place) {
      throw new Fault('caller/denied', `a process is in a cgroup that is named like container ${id} and is not its`, {
        detail: `process ${pid} is in ${quote(place)}, the container in ${quote(there)}`,
      });
    }
    const found: Known = { selectors: describe(first), socket, imageId: textOf(first, 'Image') };
    known.set(place, found);
    return found;
  }

  /** By which digests an image came from where it was signed. */
  async function imageOf({ socket, imageId }: Known, signal: AbortSignal): Promise<ContainerImage> {
    const id = /^(?:sha256:)?[0-9a-f]{64}$/.exec(imageId)?.[0];
    const body = id === undefined ? undefined : await ask(socket, `images/${id}`, signal);
    const digests = itemsOf(body, 'RepoDigests').flatMap(
      (one) => /@(sha256:[0-9a-f]{64})$/.exec(String(one))?.[1] ?? [],
    );
    return { type: 'docker', digests: [...new Set(digests)] };
  }

  /** Where a process is; undefined when it is gone or cannot be seen. The empty text when it is in no container. */
  function placeOf(pid: number): string | undefined {
    try {
      return locate(cgroups.of(pid), cgroups.own, engine.find)?.place ?? '';
    } catch (error) {
      if (error instanceof Fault && error.code === 'thing/missing') return undefined;
      throw error;
    }
  }
}

/** What is known of a container; its image when somebody has asked for that. */
interface Known {
  readonly selectors: readonly Selector[];
  readonly socket: string;
  readonly imageId: string;
  image?: ContainerImage;
}

function firstProcess(body: unknown): number | undefined {
  const pid = fieldsOf(body, 'State')['Pid'];
  return typeof pid === 'number' && Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
}

/** The selectors of ContainerInspect's answer. Empty values say nothing and are left out. */
function describe(body: unknown): readonly Selector[] {
  const config = fieldsOf(body, 'Config');
  const image = textOf(config, 'Image');
  const digest = textOf(body, 'Image');
  const values = [
    ...Object.entries(fieldsOf(config, 'Labels')).map(([name, value]) => `label:${name}:${value}`),
    ...itemsOf(config, 'Env').map((one) => `env:${one}`),
    ...(image === '' ? [] : [`image_id:${image}`]),
    // Podman leaves the name of the algorithm out.
    ...(digest === '' ? [] : [`image_config_digest:${digest.includes(':') ? digest : `sha256:${digest}`}`]),
  ];
  if (values.length > mostSelectors)
    throw new Fault(
      'limit/exceeded',
      `a container has ${values.length} labels and variables, more than ${mostSelectors}`,
    );
  return values.filter((value) => !value.includes('\0')).map((value) => makeSelector('docker', value));
}
