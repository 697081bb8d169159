/** moto in the place of AWS. */
import { peerPath } from '../../../tools/peers.ts';
import { freePort, type Place } from './place.ts';
import { until } from './until.ts';

/** Starts it and gives its port; the SDKs of this process have credentials for it then. It ends with the place. */
export async function startMoto(place: Place): Promise<number> {
  const port = await freePort();
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_EC2_METADATA_DISABLED: 'true',
  });
  await place.start('moto', peerPath('moto'), ['-H', '127.0.0.1', '-p', String(port)]);
  await until(
    'moto answers',
    60_000,
    async () => (await fetch(`http://127.0.0.1:${port}/moto-api/`).catch(() => undefined))?.ok,
  );
  return port;
}
