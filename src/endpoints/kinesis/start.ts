/** `start`: where shards begin that have no position, in our words or by the names of iterator types. */
import { parseTime } from '../../options/times'
import type { Beginning } from './wire'

/** A sequence number: of digits alone, and longer than any number that is meant otherwise. */
const SEQUENCE = /^\d{15,128}$/

/** @param now epoch milliseconds, what relative times count from. Throws an Error that says what is allowed. */
export function parseStart(text: string, now: number): Beginning {
  const raw = text.trim()
  const [, type = '', value] = /^(AT_TIMESTAMP|AT_SEQUENCE_NUMBER|AFTER_SEQUENCE_NUMBER)(?:[:=](.*))?$/i.exec(raw) ?? []
  if (type !== '') {
    if (value === undefined || value === '') throw new Error(`${type.toUpperCase()} needs its value: ${type.toUpperCase()}:${/time/i.test(type) ? 'TIME' : 'NUMBER'}`)
    if (/time/i.test(type)) return { kind: 'time', time: /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1000 : parseTime(value, now) }
    if (!/^\d{1,128}$/.test(value)) throw new Error('a sequence number is made of digits alone')
    return { kind: /^at/i.test(type) ? 'at' : 'after', sequence: value }
  }
  if (/^(oldest|trim_horizon)$/i.test(raw)) return { kind: 'oldest' }
  if (/^latest$/i.test(raw)) return { kind: 'latest' }
  if (SEQUENCE.test(raw)) return { kind: 'at', sequence: raw }
  if (/^[A-Za-z0-9+/]{60,}={0,2}$/.test(raw)) throw new Error('this is an iterator, which is good for five minutes only: oldest, latest, a time or a sequence number is expected')
  try { return { kind: 'time', time: parseTime(raw, now) } } catch (error) { throw new Error(`oldest, latest or a sequence number is expected, or ${(error as Error).message}`, { cause: error }) }
}
