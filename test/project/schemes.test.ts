/** The declarations of endpoints say what is special about a scheme, so no other code compares with its name. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { registry } from '../../src/endpoints/registry'

const SRC = join(__dirname, '../../src')
const ENDPOINTS = join(SRC, 'endpoints')

/** Each `FILE:LINE: text` where a string is exactly the name of a scheme. */
function namesIn(folder: string, schemes: readonly string[]): readonly string[] {
  const name = new RegExp(`['"\`](${schemes.map((scheme) => scheme.replace('+', '\\+')).join('|')}):?['"\`]`)
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .flatMap((path) =>
      readFileSync(join(folder, path), 'utf8')
        .split('\n')
        .map((text, index) => ({ where: `${relative(SRC, join(folder, path))}:${index + 1}`, text: text.trim() }))
        .filter(({ text }) => !/^(\/\*\*|\*|\/\/)/.test(text) && name.test(text))
        .map(({ where, text }) => `${where}: ${text}`),
    )
}

test('no string outside of the endpoints is the name of a scheme', () => {
  // `file` is a word of its own: a kind of placeholder, of stream and of metrics target.
  const schemes = registry.flatMap((endpoint) => endpoint.schemes).filter((scheme) => scheme !== 'file')
  const elsewhere = readdirSync(SRC, { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && entry.name !== 'endpoints',
  )
  const found = elsewhere.flatMap(({ name }) => namesIn(join(SRC, name), schemes))
  // Help is asked for by `-` before any declaration is loaded.
  expect(found.filter((line) => !line.startsWith('cli/plain-help.ts:'))).toEqual([])
})

test.each(registry.map((endpoint) => [endpoint.schemes[0] ?? '', endpoint] as const))(
  'the endpoint %s does not know another one by its scheme',
  (scheme, { schemes }) => {
    const others = registry.flatMap((endpoint) => endpoint.schemes).filter((name) => !schemes.includes(name))
    const common = new Set(['file', 'discard'])
    expect(
      namesIn(
        join(ENDPOINTS, scheme),
        others.filter((name) => !common.has(name)),
      ),
    ).toEqual([])
  },
)
