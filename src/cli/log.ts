/**
 * Logs go to stderr: readable on a terminal, with level prefixes under journald, plain lines elsewhere, JSON on
 * request. A bounded run without a terminal prints nothing while it goes well: its lines are kept back and the last of
 * them shown if it fails.
 */
import pino from 'pino'
import type { Log } from '../core/contract'
import { writeStderr } from './stderr'

export type LogFormat = 'auto' | 'text' | 'json'
export interface LogSettings {
  readonly format: LogFormat
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly terminal: boolean
  readonly journald: boolean
  /** Show nothing unless the run fails. */
  readonly quiet: boolean
  /** Secrets out. */
  redact(text: string): string
  /** Called around each line, so that a live line can make room. */
  around?(print: () => void): void
}
export interface CliLog extends Log {
  error(message: string, facts?: object): void
  lasting(message: string): void
  /**
   * The run failed: what was held back, so that at most so many lines are said by then: the first warning, and the last
   * ones.
   */
  showBuffered(lines: number): void
}

const JOURNALD_PREFIXES: Readonly<Record<number, string>> = { 20: '<7>', 30: '<6>', 40: '<4>', 50: '<3>' }
const LEVEL_NAMES: Readonly<Record<number, string>> = { 20: 'debug', 30: 'info', 40: 'warn', 50: 'error' }

export function createLog(settings: LogSettings): CliLog {
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
  const destination = {
    write(line: string): void {
      const text = settings.redact(settings.format === 'json' ? line : readable(line, settings))
      const [level] = /(?<="level":)\d\d/.exec(line.slice(0, 20)) ?? []
      if (!settings.quiet || level === '50') {
        put(text)
        return
      }
      if (level === '40' && firstWarning === undefined) {
        firstWarning = text
        return
      }
      buffered.push(text)
      if (buffered.length > 100) buffered.shift()
    },
  }
  const logger = pino({ level: settings.level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination)
  return {
    debug: (message, facts) => {
      logger.debug(facts ?? {}, message)
    },
    info: (message, facts) => {
      logger.info(facts ?? {}, message)
    },
    warn: (message, facts) => {
      logger.warn(facts ?? {}, message)
    },
    // Where nothing is kept back the warnings have said it.
    lasting: (message) => {
      if (settings.quiet)
        put(settings.redact(readable(JSON.stringify({ level: 40, time: '', msg: message }), settings)))
    },
    error: (message, facts) => {
      logger.error(facts ?? {}, message)
    },
    showBuffered: (lines) => {
      const all = buffered.splice(0)
      if (firstWarning !== undefined) put(firstWarning)
      for (const text of all.slice(Math.max(0, all.length - Math.max(0, lines - printedLines)))) put(text)
      firstWarning = undefined
    },
  }
}

function readable(line: string, settings: LogSettings): string {
  const { level, time, msg, ...facts } = JSON.parse(line) as { level: number; time: string; msg: string }
  const rest = Object.entries(facts)
    .map(([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join('')
  if (settings.journald) return `${JOURNALD_PREFIXES[level] ?? '<6>'}${msg}${rest}\n`
  const name = LEVEL_NAMES[level] ?? 'info'
  if (!settings.terminal) return `manifold: ${name === 'info' ? '' : `${name}: `}${msg}${rest}\n`
  const shade = level >= 50 ? '\u001b[31m' : level >= 40 ? '\u001b[33m' : '\u001b[2m'
  return `${shade}${time.slice(11, 19)} ${name}\u001b[0m ${msg}${rest}\n`
}
