/**
 * Help that needs nobody to read its words as a command's, and that loads no declarations. Most calls for help are
 * these.
 */
import { rendered } from './rendered'

/** Undefined for all else: a command's own help, and what is misspelled. */
export async function plainHelp(argv: readonly string[]): Promise<string | undefined> {
  const asked = wordsOf(argv)
  if (asked === undefined) return undefined
  const texts = rendered ?? (await (await import('./help.js')).texts())
  return Object.hasOwn(texts, asked) ? texts[asked] : undefined
}

/** By scheme, with or without its colon. */
export function schemeOf(topic: string): string {
  return topic === '-' ? 'stdio' : topic.toLowerCase().replace(/:.*$/s, '')
}

/** As they are listed: one spelling for all that ask for the same. */
function wordsOf([word, topic, ...rest]: readonly string[]): string | undefined {
  if (rest.length > 0) return undefined
  if (topic === undefined) return word === undefined || word === '--help' || word === '-h' ? 'help' : word
  if (word === 'help') return `help ${schemeOf(topic)}`
  return word === 'completions' ? `completions ${topic.toLowerCase()}` : undefined
}
