/** Reads the topic of `manifold help TOPIC`. */

/** Returns the scheme that a topic names, with or without its colon. */
export function schemeOf(topic: string): string {
  return topic === '-' ? 'stdio' : topic.toLowerCase().replace(/:.*$/s, '')
}
