/** Routes records: finds topic and key of each as the options say, or the reason why there is none. */
import type { Batch, Entry, Refusal } from '../../../core/contract'
import { jsonText } from '../../../kit/json-scan'
import type { OptionsOf } from '../../../options/define'
import type { KafkaOptions } from '../options'

/** A text for all records, or what stands at a path of each. */
export type Template =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'json'; readonly path: readonly string[] }

/** `{json:user.id}` or any other text. Throws. */
export function parseTemplate(raw: string): Template {
  const path = /^\{json:([^]*)\}$/.exec(raw)?.[1]
  if (path === undefined) {
    if (raw.includes('{json:')) throw new Error('{json:PATH} stands alone: nothing before or after it')
    return { kind: 'text', text: raw }
  }
  const names = path.split('.')
  if (names.some((name) => name === '')) throw new Error('a path is expected, such as {json:user.id}')
  return { kind: 'json', path: names }
}

/** A topic: 1 to 249 of these, and not . or .. (Kafka's Topic.validate). */
export function isTopicName(name: string): boolean {
  return /^[a-zA-Z0-9._-]{1,249}$/.test(name) && name !== '.' && name !== '..'
}

/** Returns a filter for topics that `NAME` and `~REGEX` allow. Throws where a pattern is not a regular expression. */
export function allowFilter(allowed: readonly string[]): (topic: string) => boolean {
  const names = new Set(allowed.filter((each) => !each.startsWith('~')))
  const patterns = allowed
    .filter((each) => each.startsWith('~'))
    .map((each) => new RegExp(`^(?:${each.slice(1)})$`, 'u'))
  return (topic) => names.has(topic) || patterns.some((pattern) => pattern.test(topic))
}

/** Where one record goes, in what form. */
export interface Routed {
  readonly topic: string
  readonly entry: Entry
}
export interface Routing {
  /** The only topic there is; undefined: records name it. */
  readonly topic?: string
  /** Neither keys nor topics come from the options: lines may go as they are. */
  readonly isUnchanged: boolean
  route(entry: Entry): Routed | { readonly why: string }
}

/** @param inUri topic of the URI; empty: none. Options are known to be good. */
export function routingOf(options: OptionsOf<KafkaOptions>, inUri: string): Routing {
  const topicTemplate = parseTemplate(inUri === '' ? (options.topic ?? '') : inUri)
  const allowed = allowFilter(options.allowTopic)
  const withKey = keyFunction(options)
  const fixed = topicTemplate.kind === 'text' ? topicTemplate.text : undefined
  return {
    ...(fixed === undefined ? {} : { topic: fixed }),
    isUnchanged: fixed !== undefined && withKey === undefined,
    route: (entry) => {
      const topic = fixed ?? textAt(entry.value, topicTemplate)
      if (topic === undefined) return { why: `no topic: ${missing(entry, topicTemplate)}` }
      if (fixed === undefined && !(isTopicName(topic) && allowed(topic)))
        return { why: `allow-topic does not name the topic '${topic.slice(0, 249)}'` }
      const made = withKey?.(entry) ?? entry
      return 'why' in made ? made : { topic, entry: made }
    },
  }
}

type KeyFunction = (entry: Entry) => Entry | { readonly why: string }
function keyFunction({ key, keySeparator }: OptionsOf<KafkaOptions>): KeyFunction | undefined {
  if (keySeparator !== undefined) {
    const separator = Buffer.from(keySeparator)
    return (entry) => {
      const at = entry.value === null ? -1 : entry.value.indexOf(separator)
      return at === -1 || entry.value === null
        ? entry
        : { ...entry, key: entry.value.subarray(0, at), value: entry.value.subarray(at + separator.length) }
    }
  }
  if (key === undefined) return undefined
  const template = parseTemplate(key)
  if (template.kind === 'text') {
    const bytes = Buffer.from(template.text)
    return (entry) => ({ ...entry, key: bytes })
  }
  return (entry) => {
    const text = textAt(entry.value, template)
    return text === undefined ? { why: `no key: ${missing(entry, template)}` } : { ...entry, key: Buffer.from(text) }
  }
}

function textAt(value: Buffer | null, template: Template): string | undefined {
  return template.kind === 'text' ? template.text : value === null ? undefined : jsonText(value, template.path)
}
function missing({ value }: Entry, template: Template): string {
  const path = template.kind === 'json' ? template.path.join('.') : ''
  return value === null ? `a null value has nothing at ${path}` : `the record is not JSON with something at ${path}`
}

/** All of a batch's records, each with its index, as they go; those that cannot are named. */
export function routeAll(
  batch: Batch,
  routing: Routing,
): { readonly routed: readonly (Routed & { readonly index: number })[]; readonly refused: readonly Refusal[] } {
  const routed: (Routed & { readonly index: number })[] = []
  const refused: Refusal[] = []
  batch.entries().forEach((entry, index) => {
    const found = routing.route(entry)
    if ('why' in found) refused.push({ index, why: found.why })
    else routed.push({ index, topic: found.topic, entry: found.entry })
  })
  return { routed, refused }
}
