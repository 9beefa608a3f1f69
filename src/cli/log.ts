/**
 * Writes the log to stderr: readable on a terminal, with level prefixes under journald, as plain lines elsewhere, and
 * as JSON on request. A bounded run without a terminal prints nothing while all goes well. Its lines are buffered, and
 * the last of them are printed if the run fails.
 */
import type { RunLog } from '../plan/run-log'
import { writeStderr } from './stderr'

export type Level = 'debug' | 'info' | 'warn' | 'error'
/** Renders one line of the log. */
export type LineOf = (level: Level, message: string, facts?: object) => string
export interface LogSettings {
  /** Renders the lines if they have to be JSON. */
  readonly json?: LineOf
  readonly level: Level
  readonly terminal: boolean
  readonly journald: boolean
  /** Lines are buffered until the run fails. */
  readonly quiet: boolean
  /** Removes secrets. */
  redact(text: string): string
  /** Prints a line while the live line is hidden. */
  around?(print: () => void): void
}

const LEVELS: readonly Level[] = ['debug', 'info', 'warn', 'error']
const JOURNALD_PREFIXES: Readonly<Record<Level, string>> = { debug: '<7>', info: '<6>', warn: '<4>', error: '<3>' }
const SHADES: Readonly<Record<Level, string>> = {
  debug: '\u001b[2m',
  info: '\u001b[2m',
  warn: '\u001b[33m',
  error: '\u001b[31m',
}

export function createLog(settings: LogSettings): RunLog {
  const buffered: string[] = []
  let firstWarning: string | undefined
  let printedLines = 0
  const put = (text: string): void => {
    printedLines++
    const print = (): void => {
      writeStderr(text)
    }
    if (settings.around === undefined) print()
    else settings.around(print)
  }
  const lineFor: LineOf = settings.json ?? ((level, message, facts) => readable(level, message, facts, settings))
  const least = LEVELS.indexOf(settings.level)
  const write =
    (level: Level) =>
    (message: string, facts?: object): void => {
      if (LEVELS.indexOf(level) < least) return
      const text = settings.redact(lineFor(level, message, facts))
      if (!settings.quiet || level === 'error') {
        put(text)
        return
      }
      if (level === 'warn' && firstWarning === undefined) {
        firstWarning = text
        return
      }
      buffered.push(text)
      if (buffered.length > 100) buffered.shift()
    }
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    // If nothing is buffered, the warnings have been printed already.
    lasting: (message) => {
      if (settings.quiet) put(settings.redact(readable('warn', message, undefined, settings)))
    },
    error: write('error'),
    showBuffered: (lines) => {
      const all = buffered.splice(0)
      if (firstWarning !== undefined) put(firstWarning)
      for (const text of all.slice(Math.max(0, all.length - Math.max(0, lines - printedLines)))) put(text)
      firstWarning = undefined
    },
  }
}

function readable(
  level: Level,
  message: string,
  facts: object | undefined,
  { journald, terminal }: LogSettings,
): string {
  const known = Object.entries(facts ?? {}).filter(([, value]) => value !== undefined)
  const text =
    message +
    known.map(([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`).join('')
  if (journald) return `${JOURNALD_PREFIXES[level]}${text}\n`
  if (!terminal) return `manifold: ${level === 'info' ? '' : `${level}: `}${text}\n`
  return `${SHADES[level]}${new Date().toISOString().slice(11, 19)} ${level}\u001b[0m ${text}\n`
}
