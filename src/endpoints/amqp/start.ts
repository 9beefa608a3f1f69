/**
 * Parses where reading of a stream begins (consumer argument `x-stream-offset`,
 * https://www.rabbitmq.com/docs/streams#consuming).
 */
import { parseTime } from '../../options/times'

export type Start =
  | { readonly kind: 'back'; readonly count: number }
  | { readonly kind: 'first' }
  | { readonly kind: 'next' }
  | { readonly kind: 'offset'; readonly offset: number }
  | { readonly kind: 'time'; readonly at: number }

/**
 * @param now milliseconds since the epoch
 * @throws an Error that says what is expected
 */
export function parseStart(raw: string, now: number): Start {
  if (raw === 'oldest') return { kind: 'first' }
  if (raw === 'latest') return { kind: 'next' }
  if (/^-\d{1,15}$/.test(raw)) return { kind: 'back', count: Number(raw.slice(1)) }
  if (/^\d{1,15}$/.test(raw)) return { kind: 'offset', offset: Number(raw) }
  try {
    return { kind: 'time', at: parseTime(raw, now) }
  } catch {
    throw new Error(
      'oldest, latest, an offset, -100 for the last hundred, a time such as 2026-01-31T12:00:00Z or an age such as -1h is expected',
    )
  }
}
