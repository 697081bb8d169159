import { Fault, quote } from '../src/errors.ts';
import { withAdmin } from './admin.ts';
import { command } from './command.ts';
import { relationshipBlock } from './federation-relationship.ts';
import { adminSocket, output, required, trustDomain } from './flags.ts';
import { jsonLine } from './json.ts';

export const federationShow = command({
  summary: 'Show one federation relationship',
  flags: { trustDomain: required(trustDomain('Whose bundle is followed', { also: ['id'] })), output, adminSocket },
  async run(values, ports) {
    const item = await withAdmin(values.adminSocket, ports, (admin) =>
      admin.call('federation', 'GetFederationRelationship', { trust_domain: values.trustDomain }),
    ).catch((error: unknown) => {
      if (!(error instanceof Fault) || error.code !== 'thing/missing') throw error;
      throw new Fault(
        'thing/missing',
        `there is no federation relationship with trust domain ${quote(values.trustDomain)}`,
        {
          hint: 'See "mutual federation list".',
          cause: error,
        },
      );
    });
    ports.out(values.output === 'json' ? jsonLine(item) : relationshipBlock(item, ports));
    return 0;
  },
});
