import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nameOf, pathOf, displayName } from '../../src/kit/file-names'
import { glob } from '../../src/kit/glob'
import { isGlob, matcherOf } from '../../src/kit/glob-pattern'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-glob-'))
  mkdirSync(join(folder, 'sub/deep/.hid'), { recursive: true })
  for (const name of [
    'a',
    'b',
    'c1',
    'c2',
    'c10',
    '[a]',
    'a]',
    'a*b',
    'axb',
    'a\\b',
    '-',
    '.dot',
    '{x}',
    'é',
    '😀',
    'A',
    'sub/s',
    'sub/deep/d',
    'sub/deep/.hid/h',
    'a.b',
    '!',
  ])
    writeFileSync(join(folder, name), '')
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/caf`), Buffer.from([0xe9]), Buffer.from('.log')]), '')
  symlinkSync('sub', join(folder, 'link'))
})
afterAll(() => {
  rmSync(folder, { recursive: true })
})

test.each<[string, string[]]>([
  ['a', ['a']],
  ['none', []],
  ['[ab]', ['a', 'b']],
  ['[!a-z.]', ['!', '-', 'A', 'é', '😀']],
  ['[^a-z.]', ['!', '-', 'A', 'é', '😀']],
  ['\\[a\\]', ['[a]']],
  ['[[]a]', ['[a]']],
  ['[]a]', ['a']],
  ['a[]]', ['a]']],
  ['a\\*b', ['a*b']],
  ['a?b', ['a*b', 'a.b', 'a\\b', 'axb']],
  ['a\\\\b', ['a\\b']],
  ['a[\\\\x]b', ['a\\b', 'axb']],
  ['[-]', ['-']],
  ['[a-]', ['-', 'a']],
  ['c[[:digit:]]', ['c1', 'c2']],
  ['c{1,10}', ['c1', 'c10']],
  ['c{1..3}', ['c1', 'c2']],
  ['c{2,{1,9}}', ['c1', 'c2']],
  ['\\{x\\}', ['{x}']],
  ['{x}', ['{x}']],
  ['.*', ['.dot']],
  ['?', ['!', '-', 'A', 'a', 'b', 'é', '😀']],
  ['*/s', ['link/s', 'sub/s']],
  ['sub/*', ['sub/deep', 'sub/s']],
  ['**/d', ['sub/deep/d']],
  ['sub/**', ['sub/deep', 'sub/deep/d', 'sub/s']],
  ['@(a|b)', ['a', 'b']],
  ['c+([0-9])', ['c1', 'c10', 'c2']],
  ['c?(x)1', ['c1']],
  ['!(a*|c*|[^a-z]*|link|sub|.*|*})', ['b']],
  ['sub//s', ['sub/s']],
  ['[', []],
  ['a[', []],
  ['*.log', ['caf\\xe9.log']],
  ['caf?.log', ['caf\\xe9.log']],
])('%s leads where a shell would go', async (pattern, expected) => {
  const found = [...(await glob(`${folder}/${pattern}`))].map((name) => displayName(name.slice(folder.length + 1)))
  expect(found.sort()).toEqual(expected.toSorted())
})

test('names are kept to the byte', () => {
  for (const bytes of [[0x61, 0xe9], [0xc3], [0xf0, 0x9f, 0x98, 0x80, 0xff], [0xed, 0xb2, 0x80], [0xc3, 0xa9]])
    expect(Buffer.from(pathOf(nameOf(Buffer.from(bytes))))).toEqual(Buffer.from(bytes))
  expect(JSON.parse(JSON.stringify(nameOf(Buffer.from([0xe9]))))).toBe('\uDCE9')
})

test('what is escaped is no pattern', () => {
  expect(['a*', 'a[1]', 'a{1,2}', 'a?'].map(isGlob)).toEqual([true, true, true, true])
  expect(['a\\*', 'a\\[1]', 'a\\{1,2\\}', 'a', '{yyyy}'].map(isGlob)).toEqual([false, false, false, false, false])
})

test.each([
  ['/a/*.log', '/a/b.log', true],
  ['/a/*.log', '/a/b/c.log', false],
  ['/a/**/c', '/a/c', true],
  ['/a/**/c', '/a/b/d/c', true],
  ['/a/**', '/a/b/c', true],
  ['/a/**', '/a/.b', false],
  ['/a/\\[1]', '/a/[1]', true],
  ['/a/{b,c}/d', '/a/c/d', true],
  ['/a/*', '/a/.b', false],
])('%s would lead to %s: %j', (pattern, file, expected) => {
  expect(matcherOf(pattern)(file)).toBe(expected)
})
