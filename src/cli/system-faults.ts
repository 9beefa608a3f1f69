/**
 * The last net before "a bug": what the operating system refuses comes from outside, wherever in the program it is met.
 */
import { isSystemError, lineOf } from '../core/errors'
import { EXIT } from './exit'

/** What another command line, or another user, would mend; everything else is the machine's own. */
const CALLER_ERRORS = new Set([
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
export function systemFault(error: unknown): { readonly text: string; readonly code: number } | undefined {
  if (!isSystemError(error)) return undefined
  if (error.syscall === 'uv_cwd') {
    return { text: 'the working directory is gone: change to another one, or give absolute paths', code: EXIT.usage }
  }
  return { text: lineOf(error), code: CALLER_ERRORS.has(error.code) ? EXIT.usage : EXIT.disk }
}
