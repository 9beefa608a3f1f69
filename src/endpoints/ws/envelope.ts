/** Decodes messages that are envelopes into records. */
import { createHash } from 'node:crypto'
import { decodeEnvelope } from '../../codec/envelope'
import { EMPTY, EntryBatch } from '../../core/batch'
import type { Entry } from '../../core/contract'
import { formatSize } from '../../kit/sizes'
import { HEAD, type ReceivedBatch } from './message-buffer'

/** Returns the records in order. Each batch ends behind a message that is no envelope. */
export function decodeEnvelopes(taken: ReceivedBatch, maxRecord: number): readonly ReceivedBatch[] {
  const parts: ReceivedBatch[] = []
  let entries: Entry[] = []
  let retained = 0
  const flush = (invalid?: ReceivedBatch['invalid']): void => {
    if (entries.length > 0 || invalid !== undefined)
      parts.push({
        batch: entries.length === 0 ? EMPTY : new EntryBatch(entries, retained),
        receivedAt: taken.receivedAt,
        ...(invalid === undefined ? {} : { invalid }),
      })
    entries = []
    retained = 0
  }
  for (const { value: message } of taken.batch.entries()) {
    if (message === null) continue
    const decoded = decodeEnvelope(message)
    const size = 'entry' in decoded ? (decoded.entry.value?.length ?? 0) : 0
    const why =
      'why' in decoded
        ? decoded.why
        : size > maxRecord
          ? `a record of ${formatSize(size)} is larger than max-record=${formatSize(maxRecord)}`
          : undefined
    if ('entry' in decoded && why === undefined) {
      entries.push(decoded.entry)
      retained += message.length
    } else
      flush({
        why: why ?? '',
        head: Buffer.from(message.subarray(0, HEAD)),
        length: message.length,
        sha256: createHash('sha256').update(message).digest('hex'),
      })
  }
  flush(taken.invalid)
  return parts
}
