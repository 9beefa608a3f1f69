/** What two sources of one flow would both read: each record of it would come twice. */
import { ManifoldError } from '../core/errors'
import type { SourceEnd } from './assemble'

/** A line for each pair of sources. What cannot be looked at is told when it is opened. */
export async function readTwice(sources: readonly SourceEnd[]): Promise<readonly string[]> {
  if (sources.length < 2) return []
  const seen = new Map<string, string>()
  const faults = new Map<string, string>()
  for (const { parsed, label, target } of sources) {
    const things = await parsed.endpoint.source?.reads?.(target).catch((error: unknown) => {
      if (error instanceof ManifoldError || (error as NodeJS.ErrnoException).syscall !== undefined) return undefined
      throw error
    })
    for (const [key, name] of things ?? []) {
      const of = `${parsed.uri.scheme} ${key}`
      const other = seen.get(of)
      if (other === undefined) seen.set(of, label)
      else faults.set(`${other} ${label}`, `${other} and ${label} would read ${name} twice: name it once, or by one pattern, which reads each file once`)
    }
  }
  return [...faults.values()]
}
