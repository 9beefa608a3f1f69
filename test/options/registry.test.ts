import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { endpointFor, registry } from '../../src/endpoints/registry'
import type { Role } from '../../src/options/define'
import { parseCommandLine } from '../../src/options/command-line'
import { flags } from '../../src/options/flags'
import { shellWords } from '../../src/kit/shell-words'
import { hasRole, kebab, splitName, specOf } from '../../src/options/names'

test('every folder of an endpoint has its line in the registry', () => {
  const root = join(__dirname, '../../src/endpoints')
  const folders = readdirSync(root).filter((name) => existsSync(join(root, name, 'index.ts')))
  expect(registry.map(({ schemes }) => schemes[0]).sort()).toEqual(folders.sort())
})

test('no scheme belongs to two endpoints, and all are lower case', () => {
  const schemes = registry.flatMap(({ schemes: own }) => own)
  expect(new Set(schemes).size).toBe(schemes.length)
  for (const scheme of schemes) {
    expect(scheme).toBe(scheme.toLowerCase())
    expect(endpointFor(scheme)?.schemes).toContain(scheme)
  }
})

describe.each(registry.map((endpoint) => [endpoint.schemes[0] ?? '', endpoint] as const))(
  'the declaration of %s',
  (_, endpoint) => {
    const options = Object.entries(specOf(endpoint))

    test('has one meaning for each name and alias, in each role', () => {
      for (const role of ['source', 'sink'] as Role[]) {
        const names = options
          .filter(([, option]) => hasRole(option, role))
          .flatMap(([key, option]) => [
            ...new Set(
              [key, ...(option.aliases ?? [])].map((name) =>
                name.includes('.') ? name.toLowerCase() : splitName(name).base,
              ),
            ),
          ])
        expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([])
      }
    })

    test('explains every option in full sentences, and names are what kebab-case makes of them', () => {
      for (const [key, option] of options) {
        expect(`${key}: ${option.doc}`).toMatch(/\.$/)
        expect(kebab(key)).toMatch(/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/)
      }
    })

    test('has defaults that its own parser takes', () => {
      for (const [key, option] of options) {
        const value: unknown = option.default
        if (typeof value === 'string') expect([key, option.parse(value)]).toEqual([key, value])
        if (typeof value === 'boolean') expect([key, option.parse(String(value))]).toEqual([key, value])
        if (typeof value === 'number' && option.kind === 'duration')
          expect([key, option.parse(`${value}ms`)]).toEqual([key, value])
        if (typeof value === 'number' && option.kind === 'size')
          expect([key, option.parse(`${value}B`)]).toEqual([key, value])
      }
    })

    test('has examples that parse', () => {
      expect(endpoint.examples.length).toBeGreaterThan(0)
      for (const example of endpoint.examples) {
        const [, argv] = /manifold (--from [^|>]*)/.exec(example) ?? []
        expect(argv).toBeDefined()
        expect(
          parseCommandLine(shellWords(argv ?? ''), {}, registry, { exists: () => false }).from.length,
        ).toBeGreaterThan(0)
      }
    })
  },
)

test('flags have one meaning each, and a default that they take', () => {
  const names = Object.keys(flags).map((key) => splitName(key).base)
  expect(new Set(names).size).toBe(names.length)
  for (const option of Object.values(flags)) expect(option.doc).toMatch(/\.$/)
})
