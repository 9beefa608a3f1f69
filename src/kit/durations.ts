/** Parses and formats durations: 500ms, 90s, 5m, 12h, 7d, and Go's 12h0m0s. */
const MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/**
 * Returns milliseconds.
 * @param bareMs the unit of a number without unit; if it is absent, only 0 needs no unit
 */
export function parseDuration(raw: string, bareMs?: number): number {
  const text = raw.trim()
  if (/^\d+(\.\d+)?$/.test(text)) {
    const number = Number(text)
    if (number === 0) return 0
    if (bareMs === undefined) throw new Error(`a duration needs a unit: ${text}s, ${text}m or ${text}ms`)
    const ms = number * bareMs
    if (bareMs < 1e-3 && ms < 1000)
      throw new Error(`a number without unit counts nanoseconds here: write ${text}s if seconds are meant`)
    return ms
  }
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$/.test(text))
    throw new Error('a duration is expected, such as 500ms, 30s, 5m or 12h')
  let total = 0
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)/g))
    total += Number(number) * (MS[unit ?? ''] ?? NaN)
  return total
}

/** Formats a duration in at most two units. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`
  const parts: string[] = []
  let rest = Math.round(ms / 1000)
  for (const [unit, size] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ] as const) {
    const n = Math.floor(rest / size)
    if (n > 0) {
      parts.push(`${n}${unit}`)
      rest -= n * size
    }
    if (parts.length === 2) break
  }
  return parts.join('')
}
