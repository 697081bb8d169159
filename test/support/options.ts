/** A table of options with one of each shape. */
import { choice, listOf, text, toggle } from '../../src/config/kinds.ts';
import { optional, required, section, setting } from '../../src/config.ts';

export const table = {
  name: required(text, 'The name.'),
  kind: setting(choice('a', 'b'), 'a', 'The kind.'),
  ids: setting(listOf(text), [], 'Names.'),
  quick: setting(toggle, false, 'Whether.'),
  secret: optional(text, 'The secret.', { secret: true }),
  log: section('The log.', { file: optional(text, 'The file.') }),
} as const;
