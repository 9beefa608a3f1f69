/** Comments are sentences: none begins with a subordinate clause in place of a subject and a verb. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const ROOT = join(__dirname, '../..')
const OPENING = /^\s*(?:\/\*\*|\/\/|\*) ?(?:What|Whether|Whoever)\b/

function commentsIn(folder: string): readonly string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.[jt]s$/.test(path))
    .flatMap((path) => {
      const lines = readFileSync(join(ROOT, folder, path), 'utf8').split('\n')
      return lines.flatMap((line, index) => {
        if (!OPENING.test(line)) return []
        // A line may continue the sentence of the line above it.
        const above = lines[index - 1]?.trim() ?? ''
        const continues = /^(\*|\/\/)/.test(line.trim()) && /^(\/\*\*|\*|\/\/) ?.*[^.:;?!*/]$/.test(above)
        return continues ? [] : [`${folder}/${path}:${index + 1}: ${line.trim()}`]
      })
    })
}

test.each(['src', 'scripts'])('no comment of %s begins with What, Whether or Whoever', (folder) => {
  expect(commentsIn(folder)).toEqual([])
})
