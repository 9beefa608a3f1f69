/**
 * Errors as words to the core. An endpoint throws one of the first four; the exit code follows from the class, never
 * from the text. A message is one line for the person who reads it: what failed, where, what to do next; no secret, no
 * stack.
 */
export interface ErrorFacts {
  readonly cause?: unknown
}

export abstract class ManifoldError extends Error {
  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.name = new.target.name
  }
}

/** The connection went away or could not be made: closed, waited for, opened again. */
export class Disconnected extends ManifoldError {}

/** The peer asks for patience. */
export class Throttled extends ManifoldError {
  readonly afterMs: number | undefined
  constructor(message: string, facts: ErrorFacts & { readonly afterMs?: number } = {}) {
    super(message, facts)
    this.afterMs = facts.afterMs
  }
}

/**
 * The peer refuses: credentials, no such bucket. Fatal before the endpoint's first success in this flow (a typo),
 * retried loudly afterwards.
 */
export class Refused extends ManifoldError {}

/** Waiting cannot mend it. */
export class Fatal extends ManifoldError {}

/** The reader of our stdout went away. */
export class ReaderGone extends ManifoldError {}

/** A command line or configuration that cannot be run. Exit 2. Holds every fault found, one line each. */
export class UsageError extends ManifoldError {
  readonly faults: readonly string[]
  constructor(faults: readonly string[]) {
    super(faults.join('\n'))
    this.faults = faults
  }
}

/** Another process holds this flow. Exit 75. */
export class FlowRunning extends ManifoldError {}

/** The local disk failed (spool or state). Exit 74. */
export class DiskFailed extends ManifoldError {}

export interface SystemError extends Error {
  readonly code: string
  readonly syscall: string
}
/** An error of the operating system: it names the call that failed. It comes from outside, and is no bug of ours. */
export function isSystemError(error: unknown): error is SystemError {
  const { code, syscall } = error instanceof Error ? (error as Partial<SystemError>) : {}
  return typeof code === 'string' && typeof syscall === 'string'
}

const DISK_CODES: readonly string[] = [
  'EIO',
  'EROFS',
  'ENOSPC',
  'EDQUOT',
  'ENODEV',
  'ENXIO',
  'ESTALE',
  'EUCLEAN',
  'EFBIG',
]
/** Tells whether a system call says that a disk is broken, full, gone or not to be written. */
export function isDiskError(error: unknown): boolean {
  return isSystemError(error) && DISK_CODES.includes(error.code)
}

const EXHAUSTED_CODES: readonly string[] = ['EMFILE', 'ENFILE', 'ENOMEM']
/** The machine, or the limits of this process, have no more of it; it may come free. */
export function isExhausted(error: unknown): boolean {
  return isSystemError(error) && EXHAUSTED_CODES.includes(error.code)
}

// eslint-disable-next-line no-control-regex -- control characters are what is being escaped
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g

/** One line of an unknown error, for logs: message and code, control characters escaped, never a stack. */
export function lineOf(error: unknown): string {
  const text =
    error instanceof AggregateError && error.message === ''
      ? error.errors.map(lineOf).join('; ')
      : error instanceof Error
        ? error.message !== ''
          ? error.message
          : ((error as NodeJS.ErrnoException).code ?? error.name)
        : String(error)
  return text
    .replace(CONTROL, (c) => (c === '\n' ? ' ' : `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`))
    .slice(0, 2000)
}
