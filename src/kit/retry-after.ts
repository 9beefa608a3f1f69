/**
 * Milliseconds that a peer asks for; the header counts seconds or names a date (RFC 9110, 10.2.3). undefined: it says
 * nothing that can be read.
 */
export function retryAfterMs(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
