/** The project's own laws. `npm run check` and test/repo both go through this list. */
import { ambient } from './ambient.ts';
import { errors } from './errors.ts';
import { cycles, imports } from './imports.ts';
import { names } from './names.ts';
import type { Law } from './source.ts';
import { tests } from './tests.ts';

export const laws: readonly Law[] = [imports, cycles, ambient, names, tests, errors];
