/** `svid revoke`: one identity taken back, by one of five names for it. */
import { Fault } from '../src/errors.ts';
import { command } from './command.ts';
import { adminSocket, id, output, seconds, text, toggle, withDefault } from './flags.ts';
import { printCovered, type RevokeRequest, revokeAndCover } from './revocation.ts';

export const svidRevoke = command({
  summary: 'Take back SVIDs before they expire',
  about:
    'Give one of --serial, --jti, --spiffe-id, --entry and --agent. Returns when every agent that follows one of the servers holds the new revocation lists, and says how long that took; exits with 1 when one does not within the timeout. A workload that is still registered gets a new SVID at once: delete its entry, or ban its agent, when it is to get none.',
  flags: {
    serial: text('SERIAL', 'An X.509-SVID, decimal or 0x and hexadecimal'),
    jti: text('JTI', 'A JWT-SVID, by its jti claim'),
    spiffeId: id('SPIFFE-ID', 'Everything issued for this ID up to now'),
    entry: text('ID', 'Everything issued for this entry up to now', { also: ['entryid'] }),
    agent: id('SPIFFE-ID', "An agent's own SVIDs and everything it was issued for its workloads"),
    unrecorded: toggle('With --serial: revoke it though nobody knows that it was issued'),
    timeout: withDefault(seconds('How long to wait for the agents'), 30),
    output,
    adminSocket,
  },
  examples: [
    ['mutual svid revoke --serial 0x5ac1f3', 'One stolen certificate, as openssl x509 -serial names it'],
    ['mutual svid revoke --spiffe-id spiffe://example.org/web', 'Whatever was issued for an ID'],
  ],
  async run(values, ports) {
    const targets = [
      ['serial', values.serial],
      ['jti', values.jti],
      ['spiffe_id', values.spiffeId],
      ['entry_id', values.entry],
      ['agent_id', values.agent],
    ].filter((pair): pair is [string, string] => pair[1] !== undefined);
    const [target, another] = targets;
    if (target === undefined || another !== undefined) {
      throw new Fault(
        'usage/invalid',
        target === undefined ? 'nothing to revoke is named' : 'more than one thing is named',
        {
          hint: 'Give one of --serial, --jti, --spiffe-id, --entry and --agent.',
        },
      );
    }
    if (values.unrecorded && values.serial === undefined)
      throw new Fault('usage/invalid', '--unrecorded goes with --serial alone');
    const request: RevokeRequest = { [target[0]]: target[1], unrecorded: values.unrecorded };
    const covered = await revokeAndCover([request], values.adminSocket, values.timeout, ports);
    return printCovered(covered, values.output, ports);
  },
});
