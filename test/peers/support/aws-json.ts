/**
 * A fake of an AWS service behind the real SDK: the JSON protocol 1.1 over HTTP, for a function that answers. It sees to it
 * that calls are signed for the region and the service.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface AwsService {
  readonly endpoint: string;
  close(): Promise<void>;
}

/**
 * @param prefix of the operations, such as `ACMPrivateCA`
 * @param scope `<region>/<service>`, as signatures name them
 * @param answer given an operation and its input as the SDK's user gave it; throws errors as the SDK would
 */
export async function awsService(
  prefix: string,
  scope: string,
  answer: (operation: string, input: Record<string, unknown>, accessKey: string) => object,
): Promise<AwsService> {
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const [status, body] = respond(request.headers, Buffer.concat(parts).toString('utf8'));
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' });
      response.end(JSON.stringify(body));
    });
  });

  function respond(headers: NodeJS.Dict<string | string[]>, body: string): [number, object] {
    try {
      const [of, operation] = String(headers['x-amz-target']).split('.');
      const [, accessKey, signedFor] =
        /^AWS4-HMAC-SHA256 Credential=([^/]+)\/\d{8}\/([^/]+\/[^/]+)\/aws4_request, /.exec(
          String(headers.authorization),
        ) ?? [];
      if (of !== prefix || signedFor !== scope || headers['content-type'] !== 'application/x-amz-json-1.1')
        return [403, { __type: 'InvalidSignatureException', message: `${of} ${signedFor} ${headers['content-type']}` }];
      const input = JSON.parse(body) as Record<string, unknown>;
      if (typeof input.Csr === 'string') input.Csr = new Uint8Array(Buffer.from(input.Csr, 'base64'));
      return [200, seconds(answer(operation!, input, accessKey!))];
    } catch (error) {
      const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode: number } };
      return [$metadata?.httpStatusCode ?? 500, { __type: name, message }];
    }
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Times are numbers in that protocol. */
function seconds(answer: object): object {
  return Object.fromEntries(
    Object.entries(answer).map(([name, value]) => [
      name,
      value instanceof Date
        ? value.getTime() / 1000
        : typeof value === 'object' && value !== null
          ? seconds(value)
          : value,
    ]),
  );
}
