/** Log lines as JSON. In a file of its own, for pino takes as long to load as Node to start, which few runs ask for. */
import pino from 'pino'
import type { Level } from './log'

export type LineOf = (level: Level, message: string, facts?: object) => string

export function jsonLines(): LineOf {
  let line = ''
  const logger = pino(
    { level: 'debug', base: null, timestamp: pino.stdTimeFunctions.isoTime },
    {
      write: (text) => {
        line = text
      },
    },
  )
  return (level, message, facts) => {
    logger[level](facts ?? {}, message)
    return line
  }
}
