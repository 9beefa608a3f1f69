/** Finds files that two sources of one flow would both read, so that each of their records would come twice. */
import type { SourceEnd } from './ends'

/** Returns a line for each pair of sources. */
export async function readTwice(sources: readonly SourceEnd[]): Promise<readonly string[]> {
  if (sources.length < 2) return []
  const seen = new Map<string, string>()
  const faults = new Set<string>()
  for (const { parsed, label, target } of sources) {
    for (const key of (await parsed.endpoint.files?.(target, 'source'))?.keys ?? []) {
      const other = seen.get(key)
      if (other === undefined) seen.set(key, label)
      else
        faults.add(
          `${other} and ${label} would read one file twice: name it once, or by one pattern, which reads each file once`,
        )
    }
  }
  return [...faults]
}
