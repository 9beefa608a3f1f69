/**
 * Returns the name that was most likely meant: by edit distance first, then by shared words (`commit-size` for
 * `commit-file-size`).
 */
export function nearest(typed: string, names: readonly string[]): string | undefined {
  const wanted = normalised(typed)
  if (wanted === '') return undefined
  let best: string | undefined
  let least = Infinity
  for (const name of names) {
    const distance = editDistance(wanted, normalised(name))
    if (distance < least) {
      least = distance
      best = name
    }
  }
  // A name with a third of its letters wrong is still a typo. With more it is another word.
  if (best !== undefined && least <= Math.max(1, Math.floor(Math.max(wanted.length, normalised(best).length) / 3)))
    return best
  return byWords(typed, names)
}

function byWords(typed: string, names: readonly string[]): string | undefined {
  const wanted = new Set(words(typed))
  let best: string | undefined
  let most = 0.5
  for (const name of names) {
    const own = words(name)
    const shared = own.filter((word) => wanted.has(word)).length
    const likeness = shared / (own.length + wanted.size - shared)
    if (likeness >= most && likeness > (best === undefined ? 0 : most)) {
      most = likeness
      best = name
    }
  }
  return best
}

function normalised(name: string): string {
  return name.toLowerCase().replace(/[-_]/g, '')
}
function words(name: string): string[] {
  return name
    .replace(/([a-z])([A-Z])/g, '$1-$2')
    .toLowerCase()
    .split(/[-_.]+/)
    .filter((word) => word !== '')
}

/** Counts insertions, deletions, substitutions and transpositions. Only the first 64 letters of a name are compared. */
export function editDistance(a: string, b: string): number {
  const left = a.slice(0, 64)
  const right = b.slice(0, 64)
  let before: number[] = []
  let row = Array.from({ length: right.length + 1 }, (_, index) => index)
  for (let i = 1; i <= left.length; i++) {
    const next = [i]
    for (let j = 1; j <= right.length; j++) {
      const same = left[i - 1] === right[j - 1] ? 0 : 1
      let cost = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + same)
      if (i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1])
        cost = Math.min(cost, (before[j - 2] ?? 0) + 1)
      next.push(cost)
    }
    before = row
    row = next
  }
  return row[right.length] ?? left.length
}
