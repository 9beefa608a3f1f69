/** Tests unusual names: not UTF-8, with characters of patterns, and one file with two names. */
import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { appendFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { manifold } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-names-'))
  mkdirSync(join(folder, 'in'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})
const at = (name: string): string => join(folder, name)
const run = (...from: string[]): ReturnType<typeof manifold> =>
  manifold([...from.flatMap((each) => ['--from', each]), '--to', `file:${at('out')}`, '--state', at('state')])

test('a file whose name is not UTF-8 is read, gone on with, and named', async () => {
  const name = Buffer.concat([Buffer.from(at('in/caf')), Buffer.from([0xe9]), Buffer.from('.log')])
  writeFileSync(name, 'one\n')
  writeFileSync(at('in/plain.log'), 'two\n')
  expect(await run(`file:${at('in/*.log')}`)).toMatchObject({ code: 0 })
  expect(readFileSync(at('out'), 'utf8').split('\n').sort()).toEqual(['', 'one', 'two'])
  appendFileSync(name, 'three\n')
  expect(await run(`file:${at('in/*.log')}`)).toMatchObject({ code: 0 })
  expect(readFileSync(at('out'), 'utf8').endsWith('three\n')).toBe(true)
  expect(readFileSync(at('out'), 'utf8').split('\n')).toHaveLength(4)
  rmSync(name)
  writeFileSync(Buffer.concat([Buffer.from(at('in/caf')), Buffer.from([0xe9]), Buffer.from('.gz')]), 'no gzip at all')
  expect((await run(`file:${at('in/*')}`)).stderr).toContain('caf\\xe9.gz')
})

test('a backslash in a pattern takes the meaning of what follows, and leads into no folder', async () => {
  mkdirSync(at('in/a'))
  writeFileSync(at('in/a/[1].log'), 'wrong\n')
  writeFileSync(at('in/a[1].log'), 'right\n')
  expect(await run(`file:${at('in/a\\[*.log')}`)).toMatchObject({ code: 0 })
  expect(readFileSync(at('out'), 'utf8')).toBe('right\n')
})

test.each([
  ['as a pattern', (name: string) => `${name.slice(0, -1)}[${name.slice(-1)}]`, () => undefined],
  [
    'through a link',
    (name: string) => `${name}.link`,
    (name: string) => {
      symlinkSync(name, `${name}.link`)
    },
  ],
  [
    'by another name',
    (name: string) => `${name}.hard`,
    (name: string) => {
      linkSync(name, `${name}.hard`)
    },
  ],
])('one file named twice, the second time %s, is refused before anything is read', async (_, second, prepare) => {
  writeFileSync(at('in/a'), 'one\n')
  prepare(at('in/a'))
  const { code, stderr } = await run(`file:${at('in/a')}`, `file:${second(at('in/a'))}`)
  expect(code).toBe(2)
  expect(stderr).toMatch(/in\/a.*twice/)
})
