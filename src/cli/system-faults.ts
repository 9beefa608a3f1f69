/**
 * Recognises errors of the operating system before an error is reported as a bug. They come from outside, wherever they
 * are met.
 */
import { isSystemError, lineOf } from '../core/errors'
import { EXIT } from '../core/flow/exit-code'

/** Another command line, or another user, would avoid these errors. All others are faults of the machine. */
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

/** @returns the message and the exit code, or undefined if it is no error of the operating system */
export function systemFault(error: unknown): { readonly text: string; readonly code: number } | undefined {
  if (!isSystemError(error)) return undefined
  if (error.syscall === 'uv_cwd') {
    return { text: 'the working directory is gone: change to another one, or give absolute paths', code: EXIT.usage }
  }
  return { text: lineOf(error), code: CALLER_ERRORS.has(error.code) ? EXIT.usage : EXIT.disk }
}
