/** Makes routing keys from a template, in which `{key}` and `{json:PATH}` stand for parts of a record. */
import type { Entry } from '../../core/contract'
import { jsonText } from '../../kit/json-scan'
import { parseRecordTemplate } from '../../options/record-template'
import { ROUTING_KEY } from './headers'
import { SHORT_STRING } from './publishing'

/** Returns the routing key of a record, or throws a RangeError that says why it has none. */
export type KeyOf = (entry: Entry) => Buffer

export function keyOf(template: string): KeyOf {
  const parts = parseRecordTemplate(template)
  if (parts.every((part) => 'text' in part)) {
    const fixed = checkLength(Buffer.from(template))
    return () => fixed
  }
  if (parts.length === 1 && parts[0] !== undefined && 'from' in parts[0] && parts[0].from === 'key')
    return (entry) => checkLength(keyBytes(entry))
  return (entry) =>
    checkLength(
      Buffer.concat(
        parts.map((part) =>
          'text' in part ? Buffer.from(part.text) : part.from === 'key' ? keyBytes(entry) : member(entry, part.path),
        ),
      ),
    )
}

/** A message of the default exchange has no key, but goes to the queue of the same name on another broker. */
function keyBytes({ key, headers }: Entry): Buffer {
  if (key !== undefined) return key
  const address = headers?.find(([name]) => name === ROUTING_KEY)?.[1]
  return Buffer.isBuffer(address) ? address : Buffer.from(typeof address === 'string' ? address : '')
}

/** Returns the key that a header has to carry, because a source cannot find it in this routing key. */
export function carriedKey({ key }: Entry, exchange: Buffer, routingKey: Buffer): Buffer | undefined {
  if (key === undefined) return undefined
  return exchange.length > 0 && key.length > 0 && key.equals(routingKey) ? undefined : key
}

function member(entry: Entry, path: readonly string[]): Buffer {
  const text = entry.value === null ? undefined : jsonText(entry.value, path)
  if (text === undefined) throw new RangeError(`it has no ${path.join('.')} in JSON, which the routing key asks for`)
  return Buffer.from(text)
}

function checkLength(key: Buffer): Buffer {
  if (key.length > SHORT_STRING) throw new RangeError(`its routing key is longer than ${SHORT_STRING} bytes`)
  return key
}
