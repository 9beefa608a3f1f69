/**
 * Renders log lines as JSON. This file is separate because pino takes as long to load as Node to start, and few runs
 * need it.
 */
import pino from 'pino'
import type { LineOf } from './log'

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
