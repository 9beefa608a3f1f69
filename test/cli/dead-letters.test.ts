/** Tests that dead letters name the origin of their records. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { manifold } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-letters-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})
const at = (name: string): string => join(folder, name)
const members = (name: string): { source?: string; value?: string }[] =>
  readFileSync(at(name), 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as { source?: string; value?: string })

test.each([
  ['refused at reading', [], ['--append', 'x=y'], 'no json\n', 'no json'],
  ['too large to be taken in', ['max-record=4'], [], 'a line that is too long\n', undefined],
  ['refused at reading, with a spool', [], ['--append', 'x=y', '--spool', 'spool'], 'no json\n', 'no json'],
])('a record %s names its source as the command line does', async (_, options, flags, input, value) => {
  writeFileSync(at('in'), input)
  const given = flags.map((flag) => (flag === 'spool' ? at('spool') : flag))
  const { code } = await manifold([
    '--from',
    `file:${at('in')}`,
    ...options,
    '--to',
    `file:${at('out')}`,
    '--dead-letter',
    `file:${at('dead')}`,
    '--state',
    at('state'),
    ...given,
  ])
  expect(code).toBe(5)
  expect(members('dead')).toEqual([
    expect.objectContaining({ source: `file:${at('in')}`, ...(value === undefined ? {} : { value }) }),
  ])
})

test('a record refused by a sink behind a spool does so too, and so does an envelope that is written from one', async () => {
  writeFileSync(at('in'), '{"value":"in\\ntwo lines"}\n{"value":"good"}\n')
  const { code } = await manifold([
    '--from',
    `file:${at('in')}`,
    'framing=envelope',
    '--to',
    `file:${at('lines')}`,
    '--to',
    `file:${at('envelopes')}`,
    'framing=envelope',
    '--dead-letter',
    `file:${at('dead')}`,
    '--state',
    at('state'),
  ])
  expect(code).toBe(5)
  expect(members('dead')).toEqual([expect.objectContaining({ source: `file:${at('in')}`, value: 'in\ntwo lines' })])
  expect(members('envelopes').map(({ source }) => source)).toEqual([`file:${at('in')}`, `file:${at('in')}`])
})

test.each([
  ['--dead-letter', ['--from', '-', '--to', '-', '--dead-letter', 'discard'], 'discard'],
  ['--to', ['--from', '-', '--to', 'Discard'], 'Discard'],
  ['--to', ['--from', '-', '--to', 's3'], 's3'],
  ['--from', ['--from', 'generate', '--to', '-'], 'generate'],
])('%s with the bare name of an endpoint makes no file of that name', async (_, args, word) => {
  const { code, stderr } = await manifold(args, { cwd: folder, input: 'x\n' })
  expect([code, stderr]).toEqual([
    2,
    `manifold: '${word}' is the name of an endpoint: write ${word.toLowerCase()}: for it, or ./${word} for a file of that name\n`,
  ])
  expect(readdirSync(folder)).toEqual([])
})

test('a file of such a name is named by a path', async () => {
  expect((await manifold(['--from', '-', '--to', './discard'], { cwd: folder, input: 'x\n' })).code).toBe(0)
  expect(readFileSync(at('discard'), 'utf8')).toBe('x\n')
})
