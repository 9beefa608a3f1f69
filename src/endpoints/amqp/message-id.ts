/**
 * Makes a message id that is unique and stays the same when the message is sent again. It is the id of the incoming
 * message, or else that of the record.
 */
import { hash } from 'node:crypto'
import type { Entry, Origin } from '../../core/contract'
import { SHORT_STRING } from './publishing'

const HEADER = 'amqp.message-id'
/**
 * In these sources a position means the same record for ever. The tags of a queue, and the counts of a feed or a pipe,
 * begin anew.
 */
const STABLE_SOURCES = /^(?:file|s3|kafka|kafka\+tls|kinesis):/

/** Returns undefined if no id would survive a restart. */
export function messageId(entry: Entry, origin: () => Origin): string | undefined {
  const carried = entry.headers?.find(([name]) => name === HEADER)?.[1]
  if (carried !== undefined) return Buffer.isBuffer(carried) ? carried.toString() : String(carried)
  const { id, source, partition, position } = origin()
  if (id !== undefined) return Buffer.byteLength(id) <= SHORT_STRING ? id : hash('sha256', id, 'base64url')
  // The value is included, because a file that was rewritten in place has other records at the same offsets.
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

/** A position that is an object contains more than the location, such as the time at which reading began. */
function recordLocation(position: string): string {
  if (!position.startsWith('{')) return position
  try {
    const { inode, born, offset } = JSON.parse(position) as Readonly<Record<string, string | number | undefined>>
    return offset === undefined ? position : `${inode} ${born} ${offset}`
  } catch {
    // The position of another source may also begin with a brace. It is taken as it is.
    return position
  }
}
