/** Answers most requests for help from texts that were rendered at the build, without loading any declaration. */
import { rendered } from './rendered'

/** Returns undefined for any other request: the help of a command, or a misspelled word. */
export async function plainHelp(argv: readonly string[]): Promise<string | undefined> {
  const asked = wordsOf(argv)
  if (asked === undefined) return undefined
  const texts = rendered ?? (await (await import('./help.js')).texts())
  return Object.hasOwn(texts, asked) ? texts[asked] : undefined
}

/** Returns the scheme that a topic names, with or without its colon. */
export function schemeOf(topic: string): string {
  return topic === '-' ? 'stdio' : topic.toLowerCase().replace(/:.*$/s, '')
}

/** Maps all requests for the same text to one key. */
function wordsOf([word, topic, ...rest]: readonly string[]): string | undefined {
  if (rest.length > 0) return undefined
  if (topic === undefined) return word === undefined || word === '--help' || word === '-h' ? 'help' : word
  if (word === 'help') return `help ${schemeOf(topic)}`
  return word === 'completions' ? `completions ${topic.toLowerCase()}` : undefined
}
