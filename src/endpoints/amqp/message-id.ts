/** What tells a message from every other, and a resend from neither: the incoming message's id, else the record's own. */
import { createHash } from 'node:crypto'
import type { Entry, Origin } from '../../core/contract'
import { SHORT_STRING } from './publishing'

const HEADER = 'amqp.message-id'
/** Sources of which a position is one record's for ever. A queue's tags, a feed's and a pipe's counts begin anew. */
const LASTING = /^(?:file|s3|kafka|kafka\+tls|kinesis):/

/** undefined: there is none that would outlive a restart. */
export function messageId(entry: Entry, origin: () => Origin & { readonly id?: string }): string | undefined {
  const carried = entry.headers?.find(([name]) => name === HEADER)?.[1]
  if (carried !== undefined) return Buffer.isBuffer(carried) ? carried.toString() : String(carried)
  const { id, source, partition, position } = origin()
  if (id !== undefined) return short(id)
  return LASTING.test(source) ? short(`${source} ${partition} ${position}`) : undefined
}

function short(id: string): string { return Buffer.byteLength(id) <= SHORT_STRING ? id : createHash('sha256').update(id).digest('hex') }
