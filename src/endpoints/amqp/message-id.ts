/**
 * What tells a message from every other, and is the same when it is sent again: the incoming message's id, else the
 * record's own.
 */
import { hash } from 'node:crypto'
import type { Entry, Origin } from '../../core/contract'
import { SHORT_STRING } from './publishing'

const HEADER = 'amqp.message-id'
/** Sources of which a place is one record's for ever. A queue's tags, a feed's and a pipe's counts begin anew. */
const STABLE_SOURCES = /^(?:file|s3|kafka|kafka\+tls|kinesis):/

/** undefined: there is none that would outlive a restart. */
export function messageId(entry: Entry, origin: () => Origin): string | undefined {
  const carried = entry.headers?.find(([name]) => name === HEADER)?.[1]
  if (carried !== undefined) return Buffer.isBuffer(carried) ? carried.toString() : String(carried)
  const { id, source, partition, position } = origin()
  if (id !== undefined) return Buffer.byteLength(id) <= SHORT_STRING ? id : hash('sha256', id, 'base64url')
  // With the value, for a file that was written anew in place has other records at the same offsets.
  return STABLE_SOURCES.test(source)
    ? hash(
        'sha256',
        Buffer.concat([
          Buffer.from(`${source}\n${partition}\n${recordLocation(position)}\n`),
          entry.value ?? Buffer.alloc(0),
        ]),
        'base64url',
      )
    : undefined
}

/** A position that is an object holds more than the place, such as when reading began. */
function recordLocation(position: string): string {
  if (!position.startsWith('{')) return position
  try {
    const { inode, born, offset } = JSON.parse(position) as Readonly<Record<string, string | number | undefined>>
    return offset === undefined ? position : `${inode} ${born} ${offset}`
  } catch {
    // Another source's position that begins with a brace is a place as it stands.
    return position
  }
}
