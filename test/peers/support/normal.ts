/**
 * Output of one command from two servers, made comparable: what must differ between any two servers (keys, serial
 * numbers, moments, random ids) becomes a word for its kind; all else stays, letter by letter.
 */

const rules: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN ([A-Z ]+)-----[\s\S]*?-----END \1-----/g, '<pem $1>'],
  [/eyJ[\w-]+\.[\w-]+\.[\w-]+/g, '<jwt>'],
  [/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, '<uuid>'],
  [/\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4} \w+)?/g, '<time>'],
  [/\/tmp\/mp-\w+\/(go|ours)/g, '<dir>'],
  [/\b1[6-9]\d{8}\b/g, '<epoch>'],
  [/\b\d{20,50}\b/g, '<serial>'],
  [/\b[0-9a-f]{40}\b/g, '<key id>'],
  [/"(x5c)": \[\s*"[^"]+"\s*\]/g, '"$1": ["<der>"]'],
  [/"(x|y|n|asn1|public_key|private_key)": ?"[^"]+"/g, '"$1": "<base64>"'],
  [/"(kid|key_id)": ?"[A-Za-z0-9]{32}"/g, '"$1": "<key id>"'],
  [/(uthority ID: )[A-Za-z0-9]{32}\b/g, '$1<key id>'],
  [/"authority_id": ?"[A-Za-z0-9]{32}"/g, '"authority_id": "<key id>"'],
  [/"(token|svid)": ?"<jwt>"/g, '"$1": "<jwt>"'],
  [/("(?:x509_svid|root_cas|cert_chain)": ?\[)"[^\]]+"\]/g, '$1"<base64>"]'],
];

/** Sentences that clients read, so that they are part of the contract; every other error says it in the server's own words. */
const fixed = /^(similar entry already exists|bundle already exists|OK)$/;
const sentence = (text: string): string => (fixed.test(text) ? text : '<sentence>');

/** The error of a call as the command line prints it: the status stays, the words become `<sentence>`. */
const words = (text: string): string =>
  text
    .replace(/(rpc error: code = \w+ desc = )([^\n]+)/g, (_, status, message) => `${status}${sentence(message)}`)
    .replace(/(\(code: \w+, msg: )"((?:[^"\\]|\\.)*)"/g, (_, status, message) => `${status}"${sentence(message)}"`)
    .replace(
      /("code":[1-9]\d*,"message":)"((?:[^"\\]|\\.)*)"/g,
      (_, status, message) => `${status}"${sentence(message)}"`,
    )
    .replace(
      /^(Error: (?:failed to|error) [\w "/.-]+(?:"[^"]+")?: )(?!rpc error)([^\n]+)/gm,
      (_, what, message) => `${what}${sentence(message)}`,
    );

/** The comparable form of a text. */
export const normal = (text: string): string =>
  words(rules.reduce((now, [pattern, word]) => now.replace(pattern, word), text));
