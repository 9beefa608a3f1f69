import { execFileSync } from 'node:child_process'
import * as fc from 'fast-check'
import { shellWords } from '../../src/kit/shell-words'

test('blanks separate, quotes and backslashes keep', () => {
  expect(shellWords(`--from  'a b' "c\\"d $x"\te\\ f\ng`)).toEqual(['--from', 'a b', 'c"d $x', 'e f', 'g'])
  expect(shellWords(`a'b'"c"d ''`)).toEqual(['abcd', ''])
  expect(shellWords('')).toEqual([])
  expect(shellWords('  \n ')).toEqual([])
})
test('a hash opens no comment', () => {
  expect(shellWords('a #b c#d')).toEqual(['a', '#b', 'c#d'])
})
test('a quote that is not closed is an error that says which', () => {
  expect(() => shellWords("a 'b")).toThrow('a single quote is not closed')
  expect(() => shellWords('a "b')).toThrow('a double quote is not closed')
  expect(() => shellWords('a\\')).toThrow('backslash at the end')
})
test('words quoted for a shell come back as they were', () => {
  fc.assert(
    fc.property(fc.array(fc.string()), (words) => {
      expect(shellWords(words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' '))).toEqual(words)
    }),
    { numRuns: 300 },
  )
})
test('sh splits the same way', () => {
  const text = `a "b c" 'd "e' f\\"g "h\\i\\\\j" --x="1 2"`
  expect(shellWords(text)).toEqual(
    execFileSync('sh', ['-c', `printf '%s\\n' ${text}`], { encoding: 'utf8' })
      .trimEnd()
      .split('\n'),
  )
})
