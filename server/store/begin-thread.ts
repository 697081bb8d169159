/** Begins the thread of the embedded database when it is loaded: the launcher of a build does so before anything else. */
import { beginThread } from './thread.ts';

beginThread();
