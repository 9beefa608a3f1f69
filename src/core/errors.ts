/**
 * By these errors an endpoint tells the core what happened. It throws one of the first four. The exit code follows from
 * the class, never from the text. A message is one line for the person who reads it: what failed, where, what to do
 * next. It has no secret and no stack.
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

/** The connection went away or could not be made. The core closes the endpoint, waits, and opens it again. */
export class Disconnected extends ManifoldError {}

/** The peer asks for patience. The core waits for `afterMs`, if it is given. */
export class Throttled extends ManifoldError {
  readonly afterMs: number | undefined
  constructor(message: string, facts: ErrorFacts & { readonly afterMs?: number } = {}) {
    super(message, facts)
    this.afterMs = facts.afterMs
  }
}

/**
 * The peer refuses: the credentials are wrong, or the bucket does not exist. Before the endpoint's first success in
 * this flow that is fatal (a typo), and afterwards it is tried again and told.
 */
export class Refused extends ManifoldError {}

/** Waiting cannot mend the fault, so the run ends. */
export class Fatal extends ManifoldError {}

/** The reader of our stdout went away. */
export class ReaderGone extends ManifoldError {}

/** A command line or configuration cannot be run. The exit code is 2. `faults` has a line for each fault. */
export class UsageError extends ManifoldError {
  readonly faults: readonly string[]
  constructor(faults: readonly string[]) {
    super(faults.join('\n'))
    this.faults = faults
  }
}

/** Another process runs this flow. The exit code is 75. */
export class FlowRunning extends ManifoldError {}

/** The local disk failed (spool or state). The exit code is 74. */
export class DiskFailed extends ManifoldError {}

export interface SystemError extends Error {
  readonly code: string
  readonly syscall: string
}
/**
 * Recognises an error of the operating system by the name of its call. It comes from outside, and is no bug of ours.
 */
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
/** Tells whether the machine, or a limit of this process, has no more of something that may come free. */
export function isExhausted(error: unknown): boolean {
  return isSystemError(error) && EXHAUSTED_CODES.includes(error.code)
}

// eslint-disable-next-line no-control-regex -- control characters are what is being escaped
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g

/** Makes one line of an unknown error, for logs: message and code, with control characters escaped, never a stack. */
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
