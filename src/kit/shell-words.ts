/**
 * Splits a text into words as a POSIX shell does. Blanks separate words, '…' keeps everything, "…" keeps everything
 * except \" \\ \$ \` and an escaped newline, and a backslash keeps the next character. Nothing is expanded, and `#`
 * begins no comment.
 * @throws an Error if a quote is not closed
 */
export function shellWords(text: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let quote: '"' | "'" | undefined
  for (let i = 0; i < text.length; i++) {
    const char = text.charAt(i)
    if (quote === "'") {
      if (char === "'") quote = undefined
      else word = (word ?? '') + char
    } else if (char === '\\') {
      const next = text.charAt(i + 1)
      if (i + 1 === text.length) throw new Error('a backslash at the end keeps nothing')
      i++
      if (next === '\n') continue
      word = (word ?? '') + (quote === '"' && !'"\\$`'.includes(next) ? `\\${next}` : next)
    } else if (quote === '"') {
      if (char === '"') quote = undefined
      else word = (word ?? '') + char
    } else if (char === '"' || char === "'") {
      quote = char
      word ??= ''
    } else if (char === ' ' || char === '\t' || char === '\n' || char === '\r') {
      if (word !== undefined) words.push(word)
      word = undefined
    } else word = (word ?? '') + char
  }
  if (quote !== undefined) throw new Error(`a ${quote === '"' ? 'double' : 'single'} quote is not closed`)
  if (word !== undefined) words.push(word)
  return words
}
