/** Buffers messages between the socket and the core. */
import { EntryBatch } from '../../core/batch'
import type { Batch, Clock, Entry, Lines } from '../../core/contract'
import type { Message } from './deliveries'
import { addressHeader, entryOf } from './properties'

/** One delivery to the core has at most this many bytes and messages. */
const MAX_BYTES = 1024 * 1024
const MAX_MESSAGES = 8192
/**
 * Every delivery has a fixed cost. So less than this waits a moment for more, if another delivery was made just before.
 */
const LINGER_BELOW_BYTES = 64 * 1024
const LINGER_MS = 2

export class DeliveryBuffer {
  private messages: Message[] = []
  private at = 0
  private takenAt = 0
  /** The size of the buffered messages on the wire. */
  bytes = 0

  get length(): number {
    return this.messages.length - this.at
  }

  push(message: Message): void {
    this.messages.push(message)
    this.bytes += message.bytes
  }

  /**
   * Waits a moment for more messages if that is worth it, and tells whether it has waited. It rejects with the signal's
   * reason.
   */
  async linger(clock: Clock, signal: AbortSignal): Promise<boolean> {
    if (this.length === 0 || this.bytes >= LINGER_BELOW_BYTES || clock.monotonic() - this.takenAt >= LINGER_MS)
      return false
    await clock.sleep(LINGER_MS, signal)
    return true
  }

  /**
   * Takes at most about 1 MiB and `most` messages. A larger message is taken alone.
   * @param now the time by the clock of `linger`
   */
  take(most: number, now: number): readonly Message[] {
    if (this.length === 0) return []
    this.takenAt = now
    const from = this.at
    let bytes = 0
    while (this.at < this.messages.length && this.at - from < Math.min(most, MAX_MESSAGES)) {
      const size = this.messages[this.at]?.bytes ?? 0
      if (bytes > 0 && bytes + size > MAX_BYTES) break
      bytes += size
      this.at++
    }
    this.bytes -= bytes
    if (from === 0 && this.at === this.messages.length) {
      const all = this.messages
      this.messages = []
      this.at = 0
      return all
    }
    const taken = this.messages.slice(from, this.at)
    // Taken messages are removed seldom, so that a long queue is not moved for every delivery.
    if (this.at * 2 >= this.messages.length) {
      this.messages = this.messages.slice(this.at)
      this.at = 0
    }
    return taken
  }

  clear(): void {
    this.messages = []
    this.at = this.bytes = 0
  }
}

/** Says how messages of one queue or stream become records. */
export interface QueueReading {
  /** The name of the queue or stream, as it stands in routing keys. */
  readonly name: Buffer
  readonly address: ReturnType<typeof addressHeader>
  /** @param omittedHeader a header that the broker added */
  readonly omittedHeader?: string
}
export function queueReading(queue: string, omittedHeader?: string): QueueReading {
  const address = addressHeader(queue)
  return { name: Buffer.from(queue), address, ...(omittedHeader === undefined ? {} : { omittedHeader }) }
}

/** A batch that decodes headers only when its entries are requested. */
export class MessageBatch implements Batch {
  readonly form = 'entries'
  readonly count: number
  readonly bytes: number
  readonly retained: number
  private decoded: readonly Entry[] | undefined
  private encodedLines: Lines | undefined

  constructor(
    private readonly messages: readonly Message[],
    private readonly reading: QueueReading,
  ) {
    this.count = messages.length
    let bytes = 0
    for (const message of messages) bytes += message.bytes
    this.bytes = this.retained = bytes
  }

  entries(): readonly Entry[] {
    const { name, address, omittedHeader } = this.reading
    return (this.decoded ??= this.messages.map((message) =>
      entryOf(message, omittedHeader, message.isAddressedTo(name) ? address : undefined),
    ))
  }
  // A message without body may stand for a null value.
  lines(): Lines {
    return (this.encodedLines ??= new EntryBatch(
      this.messages.map((message) => ({ value: message.body.length === 0 ? entryOf(message).value : message.body })),
      0,
    ).lines())
  }
}
