/** Parses and formats sizes. K, KB and KiB all mean 1024, in upper or lower case. */
const UNITS = ['', 'k', 'm', 'g', 't', 'p']

/**
 * Returns bytes.
 * @param bareBytes the unit of a number without unit
 */
export function parseSize(raw: string, bareBytes = 1): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(?:([kmgtp])(?:i?b)?|(b))?\s*$/i.exec(raw)
  if (match === null) throw new Error('a size is expected, such as 64MiB')
  const number = Number(match[1])
  const scale =
    match[3] !== undefined ? 1 : match[2] === undefined ? bareBytes : 1024 ** UNITS.indexOf(match[2].toLowerCase())
  const bytes = Math.round(number * scale)
  if (!Number.isSafeInteger(bytes)) throw new Error('this size is too large')
  return bytes
}

export function formatSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  const text = unit === 0 || Number.isInteger(value) ? String(value) : value.toFixed(1)
  return unit === 0 ? `${text}B` : `${text}${(UNITS[unit] ?? '').toUpperCase()}iB`
}
