/**
 * Parses the patterns that shells have for names: `*`, `?`, `[a-z]`, `[!a-z]`, `[[:digit:]]`, `{a,b}`, `{1..9}`,
 * `@(a|b)` and its variants, and `**`. A backslash escapes the next character.
 */

/** A segment is a literal name, any number of folders, or an expression that a name has to match. */
export type PathPart = string | typeof ANY_DEPTH | RegExp
export const ANY_DEPTH = Symbol('**')

const CLASSES: Readonly<Record<string, string>> = {
  alpha: '\\p{L}',
  digit: '\\p{Nd}',
  alnum: '\\p{L}\\p{Nd}',
  upper: '\\p{Lu}',
  lower: '\\p{Ll}',
  space: '\\s',
  blank: ' \\t',
  punct: '\\p{P}\\p{S}',
  word: '\\w',
  xdigit: '0-9A-Fa-f',
  cntrl: '\\p{Cc}',
}
const NAMES_WITH_CASE = process.platform === 'darwin' ? 'iu' : 'u'

export function isGlob(text: string): boolean {
  const bare = text.replace(/\\./gs, '')
  return /[*?[]|[+@!]\(/.test(bare) || /\{[^{}]*(?:,|\.\.)[^{}]*\}/.test(bare)
}

/** Removes the backslashes. */
export function unescaped(text: string): string {
  return text.replace(/\\(.)/gs, '$1')
}

/** Expands the braces of a pattern, and splits each result at its slashes. */
export function parsePattern(pattern: string): readonly (readonly PathPart[])[] {
  return expandBraces(pattern).map((each) =>
    each
      .split('/')
      .filter((part, index) => part !== '' || index === 0)
      .map(segmentOf),
  )
}

/** Returns a function that tells whether an absolute path matches an absolute pattern, whether it exists or not. */
export function matcherOf(pattern: string): (file: string) => boolean {
  const choices = parsePattern(pattern)
  return (file) => choices.some((segments) => matchesSegments(segments, file.split('/')))
}

function matchesSegments([segment, ...rest]: readonly PathPart[], [name, ...below]: readonly string[]): boolean {
  if (segment === undefined) return name === undefined
  if (segment === ANY_DEPTH)
    return (
      matchesSegments(rest, name === undefined ? [] : [name, ...below]) ||
      (name !== undefined && !name.startsWith('.') && matchesSegments([segment, ...rest], below))
    )
  if (name === undefined) return false
  return (typeof segment === 'string' ? segment === name : segment.test(name)) && matchesSegments(rest, below)
}

function segmentOf(part: string): PathPart {
  if (part === '**') return ANY_DEPTH
  if (!isGlob(part)) return unescaped(part)
  try {
    return new RegExp(
      `^${part.startsWith('.') || part.startsWith('\\.') ? '' : '(?!\\.)'}${new SegmentCompiler(part).source()}$`,
      NAMES_WITH_CASE,
    )
  } catch {
    return unescaped(part)
  }
}

/** Expands `{a,b}` and `{1..3}`, which may be nested. */
function expandBraces(text: string): readonly string[] {
  const found = firstBraces(text)
  if (found === undefined) return [text]
  const { from, to, parts } = found
  const choices = parts.length > 1 ? parts.flatMap(expandBraces) : expandRange(parts[0] ?? '')
  const rest = expandBraces(text.slice(to + 1))
  return choices.flatMap((choice) => rest.map((tail) => text.slice(0, from) + choice + tail))
}

function firstBraces(
  text: string,
): { readonly from: number; readonly to: number; readonly parts: readonly string[] } | undefined {
  for (let from = 0; from < text.length; from++) {
    if (text[from] === '\\') {
      from++
      continue
    }
    if (text[from] !== '{') continue
    const parts: string[] = []
    let start = from + 1
    let depth = 1
    for (let at = start; at < text.length; at++) {
      if (text[at] === '\\') {
        at++
        continue
      }
      if (text[at] === '{') depth++
      if (text[at] === '}') depth--
      if (depth > 1 || (depth === 1 && text[at] !== ',')) continue
      parts.push(text.slice(start, at))
      start = at + 1
      if (depth > 0) continue
      if (parts.length > 1 || expandRange(parts[0] ?? '').length > 0) return { from, to: at, parts }
      break
    }
  }
  return undefined
}

function expandRange(text: string): readonly string[] {
  const [, first = '', last = '', by = '1'] = /^(-?\d+|[a-zA-Z])\.\.(-?\d+|[a-zA-Z])(?:\.\.-?(\d+))?$/.exec(text) ?? []
  const numbers = /\d/.test(first)
  if (first === '' || numbers !== /\d/.test(last)) return []
  const width = numbers && /^-?0\d/.test(first + ' ' + last) ? Math.max(first.length, last.length) : 0
  const [a, b] = numbers ? [Number(first), Number(last)] : [first.charCodeAt(0), last.charCodeAt(0)]
  const step = Math.max(1, Number(by)) * (a <= b ? 1 : -1)
  const count = Math.min(100_000, Math.floor(Math.abs(b - a) / Math.abs(step)) + 1)
  return Array.from({ length: count }, (_, index) => a + index * step).map((each) =>
    numbers
      ? (each < 0 ? '-' : '') + String(Math.abs(each)).padStart(width - (each < 0 ? 1 : 0), '0')
      : String.fromCharCode(each),
  )
}

/** Translates one segment of a pattern into the source of a regular expression. */
class SegmentCompiler {
  private at = 0
  constructor(private readonly text: string) {}

  /** @param within is true inside a group, and then the end of an alternative ends the source */
  source(within = false): string {
    let source = ''
    while (this.at < this.text.length) {
      const character = String.fromCodePoint(this.text.codePointAt(this.at) ?? 0)
      if (within && (character === '|' || character === ')')) break
      if ('?*+@!'.includes(character) && this.text[this.at + 1] === '(' && this.text.includes(')', this.at)) {
        source += this.group(character)
        continue
      }
      this.at += character.length
      if (character === '*') source += '[^/]*'
      else if (character === '?') source += '[^/]'
      else if (character === '[') source += this.characterClass() ?? '\\['
      else if (character === '\\' && this.at < this.text.length) source += escapeRegExp(this.next())
      else source += escapeRegExp(character)
    }
    return source
  }

  private next(): string {
    const character = String.fromCodePoint(this.text.codePointAt(this.at) ?? 0)
    this.at += character.length
    return character
  }

  private group(kind: string): string {
    this.at += 2
    const choices: string[] = []
    do {
      choices.push(this.source(true))
    } while (this.text[this.at++] === '|')
    const any = `(?:${choices.join('|')})`
    return kind === '!' ? `(?!${any}(?:$|[^/]*$))[^/]*` : kind === '@' ? any : any + kind
  }

  /** Returns undefined if the class is never closed. */
  private characterClass(): string | undefined {
    const found = /^([!^]?)(\]?(?:\[:\w+:\]|\\[^]|[^\]\\])*)\]/u.exec(this.text.slice(this.at))
    if (found === null) return undefined
    const [whole, not = '', inner = ''] = found
    this.at += whole.length
    const content = inner.replace(
      /\[:(\w+):\]|\\([^])|([^])/gu,
      (_, name: string | undefined, plain: string | undefined, other: string | undefined) =>
        name !== undefined
          ? (CLASSES[name] ?? '')
          : plain !== undefined
            ? escapeRegExp(plain, true)
            : other === '-'
              ? '-'
              : escapeRegExp(other ?? ''),
    )
    // A hyphen at either end stands for itself.
    return `[${not === '' ? '' : '^/'}${content.replace(/^-/, '\\-').replace(/-$/, '\\-')}]`
  }
}

function escapeRegExp(character: string, hyphen = false): string {
  return /[\\^$.*+?()[\]{}|/]/.test(character) || (hyphen && character === '-') ? `\\${character}` : character
}
