/**
 * One meaning a word: private words of earlier code do not come back, and a word of the glossary (docs/architecture.md)
 * is part of an exported name only in the folders that the glossary gives it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, join, relative, sep } from 'node:path'
import {
  createSourceFile,
  isVariableStatement,
  ModifierFlags,
  getCombinedModifierFlags,
  ScriptTarget,
} from 'typescript'
import type { Declaration } from 'typescript'

const ROOT = join(__dirname, '../..')
const SRC = join(ROOT, 'src')

interface Name {
  readonly name: string
  /** The folder below src, such as `spool` or `endpoints/kafka`. */
  readonly folder: string
  readonly file: string
}

const sources = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .map((path) => path.split(sep).join('/'))
function folderOf(path: string): string {
  const [first = '', second = ''] = path.split('/')
  return first === 'endpoints' && path.split('/').length > 2 ? `${first}/${second}` : first
}

function exportedNames(): readonly Name[] {
  return sources.flatMap((path) => {
    const file = createSourceFile(path, readFileSync(join(SRC, path), 'utf8'), ScriptTarget.Latest, true)
    return file.statements.flatMap((statement) => {
      const declarations = (
        isVariableStatement(statement) ? statement.declarationList.declarations : [statement]
      ) as readonly (Declaration & { readonly name?: { readonly text?: string } })[]
      return declarations
        .filter((each) => (getCombinedModifierFlags(each) & ModifierFlags.Export) !== 0)
        .flatMap(({ name }) =>
          name?.text === undefined ? [] : [{ name: name.text, folder: folderOf(path), file: path }],
        )
    })
  })
}
function wordsOf(name: string): readonly string[] {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replace(/([A-Z]+)([A-Z][a-z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/)
}

/** Words that only their author understood. */
const PRIVATE = [
  'arrivals',
  'feeder',
  'forge',
  'gatherer',
  'ground',
  'house',
  'inbox',
  'keeper',
  'lane',
  'lookout',
  'misfit',
  'parcel',
  'parking',
  'piece',
  'room',
  'rooms',
  'tally',
  'trail',
  'turns',
  'unfit',
]
/** Names that were replaced by a standard one. */
const REPLACED =
  /^(Place|Found|Known|Link|Loss|Lost|Job|Tracked|Kept|Track|Watch|Piece|SpoolRoom|GroupGround|releasedAtAccept|giveUp|alone|sharing|pace|budget|look)$/

const exported = exportedNames()

test('names are found', () => {
  expect(exported.length).toBeGreaterThan(1000)
  expect(exported).toContainEqual({ name: 'Flow', folder: 'core', file: 'core/flow/flow.ts' })
})

test('no file and no exported name has a private word', () => {
  const files = sources.filter((path) => path.split(/[^a-z0-9]+/i).some((word) => PRIVATE.includes(word.toLowerCase())))
  const names = exported.filter(
    ({ name }) => REPLACED.test(name) || wordsOf(name).some((word) => PRIVATE.includes(word)),
  )
  expect(files).toEqual([])
  expect(names.map(({ file, name }) => `${file}: ${name}`)).toEqual([])
})

test('no folder of tests has a private word', () => {
  const paths = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
  const found = paths.filter((path) =>
    basename(path)
      .split(/[^a-z0-9]+/i)
      .some((word) => PRIVATE.includes(word.toLowerCase())),
  )
  expect(found.map((path) => relative(ROOT, join(ROOT, 'test', path)))).toEqual([])
})

/** The rows of the glossary: word, meaning, folders whose exported names may have the word. */
function glossary(): readonly { readonly words: readonly string[]; readonly folders: readonly string[] }[] {
  const page = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8')
  const section = /\n## Words\n([^]*?)\n## /.exec(page)?.[1] ?? ''
  return [...section.matchAll(/^\| ([^|]+) \| [^|]+ \| ([^|]*) \|$/gm)]
    .filter(([, word]) => word !== 'word' && word?.startsWith('---') !== true)
    .map(([, words = '', folders = '']) => ({
      words: words.split(', '),
      folders: [...folders.matchAll(/`([^`]+)`/g)].map(([, folder = '']) => folder),
    }))
}

test('a word of the glossary is in exported names of its folders alone', () => {
  const rows = glossary()
  expect(rows.length).toBeGreaterThan(15)
  const misplaced = rows.flatMap(({ words, folders }) =>
    words.flatMap((term) => {
      const parts = wordsOf(term)
      return exported
        .filter(({ name, folder }) => {
          const own = ` ${wordsOf(name).join(' ')} `
          return (
            own.includes(` ${parts.join(' ')} `) &&
            !folders.some((each) => folder === each || folder.startsWith(`${each}/`))
          )
        })
        .map(({ file, name }) => `${term}: ${name} in ${file}`)
    }),
  )
  expect(misplaced).toEqual([])
})
