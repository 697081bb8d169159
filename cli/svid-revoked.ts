import { pemEncode } from '../src/crypto/pem.ts';
import { withCaller } from './caller.ts';
import { command } from './command.ts';
import { adminSocket, output, toggle } from './flags.ts';
import { jsonLine } from './json.ts';
import { revocationService, revokedTable } from './revocation.ts';
import { serverAdmin } from './socket-choice.ts';

export const svidRevoked = command({
  summary: 'List what is revoked and has not expired',
  flags: { pem: toggle('Print the revocation lists as PEM instead'), output, adminSocket },
  examples: [['mutual svid revoked --pem > crl.pem', 'The lists of all authorities, for nginx or OpenSSL']],
  async run(values, ports) {
    const response = await withCaller(serverAdmin, values.adminSocket, ports, (caller) =>
      caller.call(revocationService, 'List', {}),
    );
    if (values.pem) for (const { crl } of response.lists) ports.out(pemEncode('X509 CRL', crl));
    else ports.out(values.output === 'json' ? jsonLine(response) : revokedTable(response.revoked, ports));
    return 0;
  },
});
