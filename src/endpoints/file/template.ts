/** Replaces times in the path of a file that is written. They are always UTC. */
const VARIABLE = /\{(\w+)\}/g
const NAMES = ['yyyy', 'mm', 'dd', 'HH', 'MM', 'SS'] as const
type Name = (typeof NAMES)[number]

export function hasTimes(template: string): boolean {
  return /\{(?:yyyy|mm|dd|HH|MM|SS)\}/.test(template)
}

/** @param ms milliseconds since the epoch */
export function pathAt(template: string, ms: number): string {
  const [date = '', time = ''] = new Date(ms).toISOString().split(/[TZ]/)
  const [yyyy, mm, dd] = date.split('-')
  const [HH, MM, SS] = time.slice(0, 8).split(':')
  const values: Readonly<Record<string, string | undefined>> = { yyyy, mm, dd, HH, MM, SS }
  return template.replace(VARIABLE, (whole, name: string) => values[name] ?? whole)
}

/**
 * Returns the new name of a full file: `feed.ndjson.gz` becomes `feed.ndjson-20260131T120000.gz`. The end of the name
 * stays, because it tells the compression.
 */
export function rotatedPath(path: string, ms: number, number: number): string {
  const [, stem = path, suffix = ''] = /^(.*?)(\.gz|\.zst)?$/is.exec(path) ?? []
  const stamp = new Date(ms).toISOString().slice(0, 19).replace(/[-:]/g, '')
  return `${stem}-${stamp}${number === 0 ? '' : `.${number}`}${suffix}`
}

export function templateFaults(template: string, { rotateEvery }: { readonly rotateEvery: number }): readonly string[] {
  const unknown = [...template.matchAll(VARIABLE)]
    .map(([, name]) => name)
    .filter((name) => !NAMES.includes(name as Name))
  return [
    ...unknown.map(
      (name) => `file:${template}: there is no {${name}}; a path knows ${NAMES.map((known) => `{${known}}`).join(' ')}`,
    ),
    ...(hasTimes(template) && rotateEvery > 0
      ? [`rotate-every: the times in file:${template} say already when a new file begins`]
      : []),
  ]
}
