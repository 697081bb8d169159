/** The options of the workload attestors beside `unix`, each a section that is there when the attestor is wanted. */
import { optional, optionalSection, setting } from '../config.ts';
import { Fault, quote } from '../errors.ts';
import { count, type Kind, listOf, path, socketPath, text } from './kinds.ts';

const apiVersion: Kind<string> = {
  ...text,
  name: 'API version',
  placeholder: 'N.N',
  read(given) {
    const plain = text.read(given);
    if (/^\d{1,2}\.\d{1,3}$/.test(plain)) return plain;
    throw new Fault('config/invalid', `${quote(plain)} is not a version of the API, such as 1.41`);
  },
};

/** uid_t without -1, which stands for nobody. Root has its own engine. */
const largestUid = 2 ** 32 - 2;
const version = optional(apiVersion, 'The version of the API to speak; without it the newest of the engine.');

export const workloadAttestorSections = {
  docker: optionalSection('Labels, environment and image of Docker containers.', {
    socketPath: setting(socketPath, '/var/run/docker.sock', 'The socket of the engine.'),
    version,
  }),
  podman: optionalSection('The same of Podman containers.', {
    socketPath: setting(socketPath, '/run/podman/podman.sock', "The socket of root's engine."),
    users: setting(
      listOf(count(1, largestUid)),
      [],
      'The users, by uid, whose rootless engines are believed. Whoever runs an engine can have it say anything of the containers of that user.',
    ),
    userSocketPath: setting(
      path,
      '/run/user/%d/podman/podman.sock',
      "The socket of a user's engine; `%d` stands for the uid.",
    ),
    version,
  }),
} as const;
