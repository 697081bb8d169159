/** grpc.health.v1.Health on the admin socket: serving when the own bundle can be read, as SPIRE's check has it. */
import { Fault, quote } from '../../src/errors.ts';
import type { Service } from '../../src/rpc/serve.ts';
import type { Context } from './context.ts';

export function healthService({ world, trustDomain }: Context): Service {
  const methods = {
    Check({ service }: { service: string }) {
      if (service !== '')
        throw new Fault('thing/missing', `unknown service ${quote(service)}`, {
          hint: 'Ask for the empty name: the server as a whole.',
        });
      return { status: world.bundles.has(trustDomain) ? 'SERVING' : 'NOT_SERVING' };
    },
  };
  return { name: 'grpc.health.v1.Health', methods };
}
