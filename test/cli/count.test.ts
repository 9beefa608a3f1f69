/** Tests `--count` with several files: a later run without it goes on in each of them. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { manifold } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-count-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

test.each([
  [2, 'straight', []],
  [8, 'through a spool', ['--spool']],
] as const)('%i files %s: --count 7, then all: each record once', async (several, _, more) => {
  const names = Array.from({ length: several }, (_each, index) => join(folder, `in${index}`))
  const all = names.flatMap((name, file) => {
    const lines = Array.from({ length: 1000 }, (_each, index) => String(file * 1000 + index + 1))
    writeFileSync(name, lines.map((line) => `${line}\n`).join(''))
    return lines
  })
  const out = join(folder, 'out')
  const line = [
    ...names.flatMap((name) => ['--from', `file:${name}`]),
    '--to',
    `file:${out}`,
    '--state',
    join(folder, 'state'),
    ...(more.length === 0 ? [] : ['--spool', join(folder, 'spool')]),
  ]
  const receipt = join(folder, 'receipt')
  expect(await manifold([...line, '--count', '7', '--receipt', receipt])).toMatchObject({ code: 0 })
  expect(readFileSync(out, 'utf8').trim().split('\n')).toHaveLength(7)
  expect(JSON.parse(readFileSync(receipt, 'utf8'))).toMatchObject({ sinks: [{ read: 7, delivered: 7 }] })
  expect(await manifold(line)).toMatchObject({ code: 0 })
  expect(existsSync(out)).toBe(true)
  expect(readFileSync(out, 'utf8').trim().split('\n').toSorted()).toEqual(all.toSorted())
})
