/** Parses points in time: an ISO time with its zone, `now`, or an age such as `-1h`. */
import { parseDuration } from '../kit/durations'

/**
 * Returns milliseconds since the epoch. A time without zone is refused, because it means another moment on every
 * machine.
 */
export function parseTime(raw: string, now: number = Date.now()): number {
  const text = raw.trim()
  if (text.toLowerCase() === 'now') return now
  if (/^-\d.*[a-zµ]$/i.test(text)) return now - parseDuration(text.slice(1))
  const match = /^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)([Zz]|[+-]\d\d:?\d\d)?)?$/.exec(text)
  if (match === null) throw new Error('a time is expected, such as 2026-01-31T12:00:00Z or -1h')
  if (match[3] === undefined)
    throw new Error(`a time needs its zone: ${match[1] ?? ''}T${match[2] ?? '00:00'}Z for UTC`)
  const at = Date.parse(
    text
      .replace(' ', 'T')
      .replace(/([+-]\d\d)(\d\d)$/, '$1:$2')
      .toUpperCase(),
  )
  if (Number.isNaN(at)) throw new Error('there is no such time')
  return at
}
