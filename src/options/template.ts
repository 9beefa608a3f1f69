/**
 * Parses text with `{env:NAME}`, `{file:PATH}` and `{exec:CMD}` in it. Braces are balanced, so a command may contain
 * `{print $1}`. Other groups in braces ({json:…}, {yyyy}, a glob) are plain text here; the endpoint knows them. A
 * separator within braces is no separator.
 */
export interface Placeholder {
  readonly kind: 'env' | 'file' | 'exec'
  readonly argument: string
  /** The placeholder as typed. */
  readonly text: string
}
export type Template = readonly (string | Placeholder)[]

/** Returns the positions of closing braces by those of opening ones. A brace without partner is plain text. */
function bracePairs(text: string): ReadonlyMap<number, number> {
  const open: number[] = []
  const pairs = new Map<number, number>()
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '{') open.push(i)
    else if (text[i] === '}') {
      const start = open.pop()
      if (start !== undefined) pairs.set(start, i)
    }
  }
  return pairs
}

/** Blanks each character within braces, so that positions in the result are positions in the text. */
export function maskBraces(text: string): string {
  let out = ''
  let at = 0
  const pairs = bracePairs(text)
  for (let i = 0; i < text.length; i++) {
    const end = pairs.get(i)
    if (end === undefined) continue
    out += text.slice(at, i) + '\uE000'.repeat(end + 1 - i)
    at = end + 1
    i = end
  }
  return out + text.slice(at)
}

/** @param decode is applied to the text around placeholders only */
export function templateOf(text: string, decode: (literal: string) => string = (literal) => literal): Template {
  const pairs = bracePairs(text)
  const parts: (string | Placeholder)[] = []
  let at = 0
  for (let i = 0; i < text.length; i++) {
    const end = pairs.get(i)
    if (end === undefined) continue
    const match = /^(env|file|exec):([^]+)$/.exec(text.slice(i + 1, end))
    if (match === null) continue
    if (i > at) parts.push(decode(text.slice(at, i)))
    parts.push({ kind: match[1] as Placeholder['kind'], argument: match[2] ?? '', text: text.slice(i, end + 1) })
    at = end + 1
    i = end
  }
  if (at < text.length) parts.push(decode(text.slice(at)))
  return parts
}

export function placeholdersOf(template: Template): readonly Placeholder[] {
  return template.filter((part) => typeof part !== 'string')
}
export function isFixed(template: Template): boolean {
  return template.every((part) => typeof part === 'string')
}
export function fill(template: Template, value: (placeholder: Placeholder) => string): string {
  return template.map((part) => (typeof part === 'string' ? part : value(part))).join('')
}
/** Returns the text with its placeholders as typed. */
export function asTyped(template: Template): string {
  return fill(template, (placeholder) => placeholder.text)
}

/**
 * Returns a placeholder as messages may show it. Of a command only the first word is shown, because the rest may
 * contain credentials.
 */
export function displayPlaceholder(placeholder: Placeholder): string {
  if (placeholder.kind !== 'exec') return placeholder.text
  const first = /^\s*([\w./+-]+)(?=\s|$)/.exec(placeholder.argument)?.[1]
  return first === undefined ? '{exec:...}' : first === placeholder.argument ? placeholder.text : `{exec:${first} ...}`
}
