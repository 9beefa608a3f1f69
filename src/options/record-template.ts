/** Templates in options: text in which `{NAME}` stands for something of a record or an object. */

export type TemplatePart = { readonly text: string } | { readonly name: string }

/**
 * Splits a template.
 * @throws an Error if a brace has no pair
 */
export function splitTemplate(template: string): readonly TemplatePart[] {
  const parts: TemplatePart[] = []
  for (const [, name, text] of template.matchAll(/\{([^{}]*)\}|((?:[^{}]|[{}])[^{}]*)/g)) {
    if (text === undefined) parts.push({ name: name ?? '' })
    else if (/[{}]/.test(text)) throw new Error('a brace has no pair')
    else parts.push({ text })
  }
  return parts
}

export type RecordPart =
  | { readonly text: string }
  | { readonly from: 'key' }
  | { readonly from: 'json'; readonly path: readonly string[] }

/**
 * Parses a template of a record's parts: `{key}`, and `{json:PATH}` for a member of its JSON.
 * @throws an Error that says what is expected
 */
export function parseRecordTemplate(template: string): readonly RecordPart[] {
  let parts: readonly TemplatePart[]
  try {
    parts = splitTemplate(template)
  } catch (error) {
    throw new Error(`${(error as Error).message}: {key} and {json:PATH} are known`)
  }
  return parts.map((part) => {
    if ('text' in part) return part
    if (part.name === 'key') return { from: 'key' }
    const path = /^json:(.+)$/.exec(part.name)?.[1]?.split('.')
    if (path === undefined || path.includes(''))
      throw new Error(`{${part.name}} is not known: {key} and {json:PATH} are, such as {json:user.id}`)
    return { from: 'json', path }
  })
}
