/**
 * Returns the milliseconds that a peer asks to wait, or undefined if the header cannot be read. It counts seconds or
 * names a date (RFC 9110, 10.2.3).
 */
export function retryAfterMs(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
