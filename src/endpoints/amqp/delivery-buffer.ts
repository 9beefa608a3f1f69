/** Messages between the socket and the core, as they came. */
import { EntryBatch } from '../../core/batch'
import type { Batch, Clock, Entry, Lines } from '../../core/contract'
import type { Message } from './deliveries'
import { addressHeader, entryOf } from './properties'

/** Of one delivery to the core. */
const MAX_BYTES = 1024 * 1024
const MAX_MESSAGES = 8192
/**
 * A delivery costs the same whatever is in it: less than this waits a moment for more, where others went before it just
 * now.
 */
const LINGER_BELOW_BYTES = 64 * 1024
const LINGER_MS = 2

export class DeliveryBuffer {
  private messages: Message[] = []
  private at = 0
  private takenAt = 0
  /** On the wire, of what waits. */
  bytes = 0

  get length(): number {
    return this.messages.length - this.at
  }

  push(message: Message): void {
    this.messages.push(message)
    this.bytes += message.bytes
  }

  /** Whether a moment was waited for what follows. Rejects with the signal's reason. */
  async linger(clock: Clock, signal: AbortSignal): Promise<boolean> {
    if (this.length === 0 || this.bytes >= LINGER_BELOW_BYTES || clock.monotonic() - this.takenAt >= LINGER_MS)
      return false
    await clock.sleep(LINGER_MS, signal)
    return true
  }

  /**
   * What waits, at most about 1 MiB and `most` messages; a larger message alone. @param now by the clock of `gather`
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
    // Taken off the front in one go, and seldom: a long queue is not moved for every delivery.
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

/** How messages of one queue or stream become records. */
export interface QueueReading {
  /** Its name, as routing keys have it. */
  readonly name: Buffer
  readonly address: ReturnType<typeof addressHeader>
  /** A header that is the broker's, not the message's. */
  readonly omittedHeader?: string
}
export function queueReading(queue: string, omittedHeader?: string): QueueReading {
  const address = addressHeader(queue)
  return { name: Buffer.from(queue), address, ...(omittedHeader === undefined ? {} : { omittedHeader }) }
}

/** Headers are decoded only where somebody asks for entries. */
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
  // One without body may stand for a record that has no value.
  lines(): Lines {
    return (this.encodedLines ??= new EntryBatch(
      this.messages.map((message) => ({ value: message.body.length === 0 ? entryOf(message).value : message.body })),
      0,
    ).lines())
  }
}
