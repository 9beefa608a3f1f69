/**
 * The last net before "a bug": what the operating system refuses comes from outside, wherever in the program it is met.
 */
import { isSystemError, lineOf } from '../core/errors'
import { EXIT } from './exit'

/** What another command line, or another user, would mend; everything else is the machine's own. */
const MENDED_BY_THE_CALLER = new Set([
  'EACCES',
  'EPERM',
  'ENOENT',
  'ENOTDIR',
  'EISDIR',
  'ELOOP',
  'ENAMETOOLONG',
  'EEXIST',
  'EINVAL',
  'ERR_SYSTEM_ERROR',
])

/** @returns what is said and the exit code; undefined where the error is none of the system's */
export function outsideFault(error: unknown): { readonly text: string; readonly code: number } | undefined {
  if (!isSystemError(error)) return undefined
  if (error.syscall === 'uv_cwd') {
    return { text: 'the working directory is gone: change to another one, or give absolute paths', code: EXIT.usage }
  }
  return { text: lineOf(error), code: MENDED_BY_THE_CALLER.has(error.code) ? EXIT.usage : EXIT.disk }
}
