/** Routing keys out of records: text in which `{key}` and `{json:PATH}` stand for what a record says. */
import type { Entry } from '../../core/contract'
import { jsonText } from '../../kit/json-scan'
import { ROUTING_KEY } from './headers'
import { SHORT_STRING } from './publishing'

type Piece =
  | { readonly text: string }
  | { readonly from: 'key' }
  | { readonly from: 'json'; readonly path: readonly string[] }

/** Throws what is expected instead. */
export function parseKey(raw: string): readonly Piece[] {
  const pieces: Piece[] = []
  for (const [, group, text] of raw.matchAll(/\{([^{}]*)\}|((?:[^{}]|[{}])[^{}]*)/g)) {
    if (text !== undefined) {
      if (/[{}]/.test(text)) throw new Error('a brace has no pair: {key} and {json:PATH} are known')
      pieces.push({ text })
    } else if (group === 'key') pieces.push({ from: 'key' })
    else {
      const path = /^json:(.+)$/.exec(group ?? '')?.[1]?.split('.')
      if (path === undefined || path.includes(''))
        throw new Error(`{${group ?? ''}} is not known: {key} and {json:PATH} are, such as {json:user.id}`)
      pieces.push({ from: 'json', path })
    }
  }
  return pieces
}

/** The key of a record; throws a RangeError that says why it has none. */
export type KeyOf = (entry: Entry) => Buffer

export function keyOf(template: string): KeyOf {
  const pieces = parseKey(template)
  if (pieces.every((piece) => 'text' in piece)) {
    const fixed = checked(Buffer.from(template))
    return () => fixed
  }
  if (pieces.length === 1 && pieces[0] !== undefined && 'from' in pieces[0] && pieces[0].from === 'key')
    return (entry) => checked(keyBytes(entry))
  return (entry) =>
    checked(
      Buffer.concat(
        pieces.map((piece) =>
          'text' in piece
            ? Buffer.from(piece.text)
            : piece.from === 'key'
              ? keyBytes(entry)
              : member(entry, piece.path),
        ),
      ),
    )
}

/**
 * A message of the default exchange has no key of its own, but goes to the queue of the same name on another broker.
 */
function keyBytes({ key, headers }: Entry): Buffer {
  if (key !== undefined) return key
  const address = headers?.find(([name]) => name === ROUTING_KEY)?.[1]
  return Buffer.isBuffer(address) ? address : Buffer.from(typeof address === 'string' ? address : '')
}

function member(entry: Entry, path: readonly string[]): Buffer {
  const text = entry.value === null ? undefined : jsonText(entry.value, path)
  if (text === undefined) throw new RangeError(`it has no ${path.join('.')} in JSON, which the routing key asks for`)
  return Buffer.from(text)
}

function checked(key: Buffer): Buffer {
  if (key.length > SHORT_STRING) throw new RangeError(`its routing key is longer than ${SHORT_STRING} bytes`)
  return key
}
