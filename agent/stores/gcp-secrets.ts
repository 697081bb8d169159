/**
 * Store `gcp_secretmanager`: a secret of Google Secret Manager for each entry, `name` in `projectid`, replicated to
 * `regions` or wherever Google likes, and readable by `serviceaccount` with `role` when both are given. The label
 * `spire-svid` holds a hash of the trust domain, as SPIRE's does; any other secret is left alone. Of the versions that
 * renewals leave behind, the one before the last stays for who is just reading it, and older ones are destroyed.
 */
import { createHash } from 'node:crypto';
import { Fault } from '../../src/errors.ts';
import { type GoogleApi, googleApi } from '../../src/keys/google-api.ts';
import type { LoadPackage } from '../../src/keys/load-package.ts';
import type { TrustDomain } from '../../src/spiffe/id.ts';
import { foreign, storeGarbled, storeRefused, storeUnreachable } from './cloud-faults.ts';
import { printSecret } from './secret.ts';
import { wrong } from './settings.ts';
import type { Place, SvidStore } from './svid-store.ts';

export interface GcpSecretManagerOptions {
  /** JSON of a service account or of a federated identity; without it the machine's own credentials. */
  readonly credentialsFile?: string | undefined;
  readonly endpoint?: string | undefined;
}

const name = 'Google Secret Manager';
const label = 'spire-svid';

interface GcpSecret extends Place {
  readonly project: string;
  readonly name: string;
  readonly regions: readonly string[] | undefined;
  /** Who may read it. */
  readonly reader: { readonly role: string; readonly member: string } | undefined;
}

/** Opens the store. Throws `config/invalid` when the package of Google's credentials is missing, or they cannot be used. */
export async function gcpSecretManager(
  options: GcpSecretManagerOptions,
  trustDomain: TrustDomain,
  load: LoadPackage,
): Promise<SvidStore<GcpSecret>> {
  const api = await googleApi(
    {
      base: options.endpoint ?? 'https://secretmanager.googleapis.com',
      scope: 'https://www.googleapis.com/auth/cloud-platform',
      credentialsFile: options.credentialsFile,
      wanted: 'svidStores.gcpSecretManager',
      unreachable: (detail, why) => storeUnreachable(name, detail, why),
      refused: (doing, detail) => storeRefused(name, doing, detail),
      garbled: (what, detail) => storeGarbled(name, what, detail),
    },
    load,
  );
  // A label takes no points; SPIRE hashes with SHA-1 here, which need not withstand anybody.
  const owner = createHash('sha1').update(trustDomain).digest('hex');

  /** The secret, ours; undefined when there is none. */
  const find = async (path: string, signal: AbortSignal): ReturnType<GoogleApi['call']> => {
    const found = await api.call('GET', path, 'reading a secret', undefined, signal);
    if (found !== undefined && found.labels?.[label] !== owner)
      throw foreign(path, `${label}=${owner} among its labels`);
    return found;
  };
  const create = async ({ project, name: secretId, regions }: GcpSecret, signal: AbortSignal): Promise<void> => {
    const replication =
      regions === undefined
        ? { automatic: {} }
        : { userManaged: { replicas: regions.map((location) => ({ location })) } };
    const path = `projects/${project}/secrets?secretId=${secretId}`;
    const made = await api.call('POST', path, 'making a secret', { replication, labels: { [label]: owner } }, signal);
    if (made === undefined) throw storeRefused(name, 'making a secret', `no project ${project}`);
  };
  const allow = async (path: string, { reader }: GcpSecret, signal: AbortSignal): Promise<void> => {
    if (reader === undefined) return;
    const bindings = [{ role: reader.role, members: [reader.member] }];
    const held = await api.call('GET', `${path}:getIamPolicy`, 'reading who may read a secret', undefined, signal);
    const isSo =
      held?.bindings?.length === 1 &&
      held.bindings[0].role === reader.role &&
      held.bindings[0].members?.length === 1 &&
      held.bindings[0].members[0] === reader.member;
    if (isSo) return;
    await api.call('POST', `${path}:setIamPolicy`, 'letting a secret be read', { policy: { bindings } }, signal);
  };

  return {
    name: 'gcp_secretmanager',
    place(settings) {
      const project = settings.required('projectid');
      const secretId = settings.required('name');
      if (!/^[a-z0-9.:-]{1,64}$/.test(project))
        throw wrong(`gcp_secretmanager:projectid:${project}`, 'expected the id of a project');
      if (!/^[A-Za-z0-9_-]{1,255}$/.test(secretId))
        throw wrong(`gcp_secretmanager:name:${secretId}`, 'expected letters, digits, "_" and "-"');
      const account = settings.optional('serviceaccount');
      const role = settings.optional('role');
      if ((account === undefined) !== (role === undefined))
        throw new Fault('input/invalid', 'of serviceaccount and role the entry gives only one', {
          hint: 'Give both, to let that account read the secret, or none.',
        });
      const regions = settings
        .optional('regions')
        ?.split(',')
        .filter((region) => region !== '');
      if (regions?.length === 0) throw wrong('gcp_secretmanager:regions:,', 'expected one region or more');
      return {
        key: `projects/${project}/secrets/${secretId}`,
        project,
        name: secretId,
        regions,
        reader: account !== undefined && role !== undefined ? { role, member: `serviceAccount:${account}` } : undefined,
      };
    },
    async put(place, secret, signal) {
      const path = place.key;
      if ((await find(path, signal)) === undefined) await create(place, signal);
      // Before there is something to read.
      await allow(path, place, signal);
      const payload = { data: Buffer.from(printSecret(secret)).toString('base64') };
      const added = await api.call('POST', `${path}:addVersion`, 'adding a version', { payload }, signal);
      const version = Number(/\/versions\/(\d+)$/.exec(String(added?.name))?.[1]);
      if (!Number.isSafeInteger(version)) throw storeGarbled(name, 'a version without a number', added?.name);
      if (version > 2)
        await api.call('POST', `${path}/versions/${version - 2}:destroy`, 'destroying a version', {}, signal);
    },
    async remove({ key }, signal) {
      const found = await find(key, signal);
      if (found === undefined) return;
      const etag = found.etag === undefined ? '' : `?etag=${encodeURIComponent(String(found.etag))}`;
      await api.call('DELETE', `${key}${etag}`, 'removing a secret', undefined, signal);
    },
    close: () => api.close(),
  };
}
