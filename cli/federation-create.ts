import { withAdmin } from './admin.ts';
import { reportFailed, succeeded } from './batch.ts';
import { command } from './command.ts';
import { federationFlags, relationshipBlock, relationshipsFrom } from './federation-relationship.ts';
import { jsonLine } from './json.ts';

export const federationCreate = command({
  summary: 'Follow the bundle of another trust domain',
  flags: federationFlags,
  async run(values, ports) {
    const federation_relationships = await relationshipsFrom(values, ports);
    const response = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('federation', 'BatchCreateFederationRelationship', { federation_relationships }),
    );
    if (values.output === 'json') ports.out(jsonLine(response));
    else
      ports.out(
        succeeded(response.results)
          .map((result) => relationshipBlock(result.federation_relationship, ports))
          .join('\n'),
      );
    return reportFailed(
      response.results,
      'federation relationship not created',
      (index) => federation_relationships[index].trust_domain,
      ports,
    );
  },
});
