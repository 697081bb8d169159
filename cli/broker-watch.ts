import { join } from 'node:path';
import { Fault, quote } from '../src/errors.ts';
import { messageCodec } from '../src/rpc/load.ts';
import { sleep } from '../src/run/clock.ts';
import { brokerEndpoint, brokerVariable } from './broker-endpoint.ts';
import { workloadFiles } from './broker-files.ts';
import { followWorkload, type Sink, withBroker } from './broker-session.ts';
import { command } from './command.ts';
import { printMoment } from './duration.ts';
import {
  id,
  many,
  output,
  required,
  seconds,
  text,
  toggle,
  wholeNumber,
  withDefault,
  workloadSocket,
} from './flags.ts';
import { jsonLine } from './json.ts';
import type { Ports } from './ports.ts';
import { svidTable } from './svid-text.ts';
import { count } from './table.ts';
import { visible } from './visible.ts';

interface Workload {
  /** Also the name of its folder. */
  readonly name: string;
  readonly request: object;
}

export const brokerWatch = command({
  summary: 'Follow the X.509-SVIDs of other workloads, as their broker',
  about:
    'For a program that the agent knows as a broker. Each workload is followed by itself: with --write its files are in a folder of its own (svid.pem, key.pem and so on, and identities.json with the hint of each), replaced at each change and removed when the workload is gone or entitled to nothing. JSON is a line an event, without private keys.',
  flags: {
    pid: many(wholeNumber('PID', 'A process of the node of the agent')),
    pod: many(text('NAMESPACE/NAME[@UID]', 'A pod of that node')),
    podUid: many(text('UID', 'The same by its UID alone')),
    agentId: required(id('SPIFFE-ID', 'The agent that is expected; another is not believed')),
    endpoint: text('URI', 'The broker endpoint: unix:///PATH or tcp://HOST:PORT', { env: brokerVariable }),
    spiffeId: id('SPIFFE-ID', 'As whom to come, for a broker with several SVIDs'),
    write: text('DIR', 'Write the SVIDs of each workload into a folder here'),
    once: toggle('Leave after the first message of each'),
    spread: withDefault(
      seconds('Pass changes on at a random moment within this time, so that not all workloads reload at once'),
      2,
    ),
    output,
    socket: workloadSocket,
  },
  examples: [
    [
      'mutual broker watch --endpoint unix:///run/mutual/broker/api.sock --agent-id spiffe://example.org/spire/agent/x509pop/n1 --pid 4242 --write /run/svids',
      'Keep the SVIDs of process 4242 in /run/svids/pid-4242',
    ],
  ],
  async run(values, ports) {
    const workloads = [...values.pid.map(ofProcess), ...values.pod.map(ofPod), ...values.podUid.map(ofUid)];
    if (workloads.length === 0)
      throw new Fault('usage/invalid', 'no workload is named; give --pid, --pod or --pod-uid');
    const options = {
      endpoint: brokerEndpoint(values.endpoint, ports),
      agentId: values.agentId,
      socket: values.socket,
      as: values.spiffeId,
    };
    try {
      const ends = await withBroker(options, ports, (session, within) =>
        Promise.all(
          workloads.map(({ name, request }) => {
            const sink = sinkOf(name, values, within);
            return followWorkload({ session, request, once: values.once, ports: within, sink });
          }),
        ),
      );
      const failed = ends.find((fault) => fault !== undefined && fault.info?.reason !== 'WORKLOAD_NOT_FOUND');
      if (failed !== undefined) throw failed;
      return 0;
    } catch (error) {
      if (ports.stop.aborted) return 0;
      throw error;
    }
  },
});

interface SinkValues {
  readonly write: string | undefined;
  readonly spread: number;
  readonly output: 'pretty' | 'json';
}

function sinkOf(name: string, { write, spread, output: format }: SinkValues, ports: Ports): Sink {
  const files = write === undefined ? undefined : workloadFiles(join(write, name), ports);
  let isFirst = true;
  const say = (event: string, fields: object, words: string): void => {
    if (format === 'json') ports.out(jsonLine({ event, workload: name, ...fields }));
    else ports.out(`${printMoment(Math.floor(ports.clock.now() / 1000))}  ${name}: ${words}`);
  };
  return {
    async update(message) {
      // Workloads may reload at each change: a change for many reaches them one after the other (§4.4).
      if (!isFirst) await sleep(ports.clock, spread * 1_000 * ports.random.unit(), ports.stop);
      isFirst = false;
      await files?.write(message);
      const svids = message.svids.map(({ x509_svid_key: _, ...svid }: { x509_svid_key: Buffer }) => svid);
      const words = `received ${count(svids.length, 'SVID', 'SVIDs')}\n${svidTable(message, ports)}\n`;
      say('update', { ...message, svids }, words);
    },
    async erase(why) {
      await files?.erase();
      say('erased', { reason: why.info?.reason ?? '', message: why.message }, `erased, ${visible(why.message)}\n`);
    },
    failed: (why) => ports.err(`${name}: ${visible(why.message)}; trying again.\n`),
  };
}

const referring = (type: string, message: object): object => ({
  reference: {
    reference: {
      type_url: `type.googleapis.com/spiffe.broker.${type}`,
      value: messageCodec(`spiffe.broker.${type}`).encode(message),
    },
  },
});
const toPod = (more: object): object =>
  referring('KubernetesObjectReference', { type: { plural: 'pods', group: 'core' }, ...more });

const ofProcess = (pid: number): Workload => ({
  name: `pid-${pid}`,
  request: referring('WorkloadPIDReference', { pid }),
});

function ofPod(given: string): Workload {
  // Neither name may hold what the name of the folder puts between them.
  const found = /^([a-z0-9-]+)\/([a-z0-9.-]+)(?:@([0-9A-Fa-f-]+))?$/.exec(given);
  if (found === null) {
    throw new Fault(
      'usage/invalid',
      `--pod ${quote(given)} is not valid: expected NAMESPACE/NAME or NAMESPACE/NAME@UID`,
    );
  }
  const [, namespace, name, uid = ''] = found;
  return { name: `pod-${namespace}_${name}`, request: toPod({ key: { namespace, name }, uid }) };
}

function ofUid(uid: string): Workload {
  if (!/^[0-9A-Fa-f-]{36}$/.test(uid)) throw new Fault('usage/invalid', `--pod-uid ${quote(uid)} is not a UUID`);
  return { name: `pod-${uid.toLowerCase()}`, request: toPod({ uid }) };
}
