/**
 * Reads a stream. A stream keeps its messages, so the position is kept in the state of the flow: the offset of the last
 * message that was returned, and a hash of its value.
 *
 * - Reading resumes at that message, not after it. If it has another value, or the stream ends before it, the stream
 *   was recreated and is read from its start. AMQP tells neither the creation time nor the id of a stream, and it would
 *   silently deliver nothing of one that is too short.
 * - Messages that retention removed before they were read are a gap.
 * - Acknowledgements are only credit, so a message is acknowledged as soon as it is returned.
 */
import { createHash } from 'node:crypto'
import { EMPTY, within } from '../../core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Refused, type ManifoldError } from '../../core/errors'
import { linkedAbort, unlessAborted, Notifier } from '../../kit/signal'
import type { Target } from '../../options/define'
import { connect, type Connection } from './client'
import type { Message } from './deliveries'
import { DeliveryBuffer, MessageBatch, queueReading, type QueueReading } from './delivery-buffer'
import type { AmqpOptions } from './options'
import { STREAM_OFFSET, streamOffset } from './properties'
import { isInsecure, settingsOf } from './settings'
import { parseStart } from './start'
import { prepareQueue } from './topology'

/** The credit has to cover one round trip only, because a returned message gives it back at once. */
const CREDIT = 2000

type StartOffset = 'first' | number

export class StreamSource implements Source {
  private readonly notifier = new Notifier()
  private readonly buffer = new DeliveryBuffer()
  private readonly stream: string
  private readonly reading: QueueReading
  private ctx: SourceContext | undefined
  private connection: Connection | undefined
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private fault: ManifoldError | undefined
  private partition: Partition
  private hostIndex = 0
  /** The last message that was read, to find out whether the stream is still the same. */
  private lastRead: { readonly offset: number; readonly hash: string } | undefined
  /** The stream was recreated and is read from its start. */
  private isRecreated = false
  /** The offset of the last message that was returned. */
  private deliveredOffset = -1
  /** `--until end` stops at this offset. */
  private endOffset: number | undefined
  private bounded = false
  /** The position that `start` was resolved to. It is stored before anything is read. */
  private resolvedStart: Position | undefined

  constructor(private readonly target: Target<AmqpOptions>) {
    this.stream = target.options.queue ?? ''
    this.reading = queueReading(this.stream, STREAM_OFFSET)
    this.partition = { name: this.stream, epoch: 0 }
  }

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
    const { signal } = (this.lifetime = linkedAbort(ctx.signal)).controller
    if (isInsecure(this.target.options) && this.target.uri.scheme === 'amqps')
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const given = await this.target.resolve()
    const settings = await settingsOf(given, 'source')
    this.buffer.clear()
    this.fault = undefined
    this.partition = { name: this.stream, epoch: this.partition.epoch + 1 }
    const { connection, host } = await connect(
      settings,
      this.hostIndex,
      {
        activity: `reading stream '${this.stream}'`,
        message: (message) => {
          this.buffer.push(message)
          this.notifier.notify()
        },
        cancelled: () => {
          this.fail(
            new Disconnected(
              `the broker ended the consumer of stream '${this.stream}': it was deleted, or its node went away`,
            ),
          )
        },
      },
      ctx.clock,
      ctx.log,
      signal,
    )
    this.connection = connection
    this.hostIndex = host
    void connection.ended.then((fault) => {
      if (this.connection === connection) this.fail(fault)
    })
    await connection.call((channel) => prepareQueue(channel, this.stream, given.options))
    const begin = await this.startOffset(connection, ctx)
    const { consumer, prefetch } = given.options
    await connection.call((channel) => channel.prefetch(prefetch > 0 ? prefetch : CREDIT))
    await connection.consume(this.stream, {
      ...(consumer === undefined ? {} : { consumerTag: consumer }),
      arguments: { 'x-stream-offset': begin },
    })
    signal.throwIfAborted()
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const clock = this.ctx?.clock
    if (clock === undefined) throw new Disconnected('not connected')
    for (;;) {
      signal.throwIfAborted()
      if (this.fault !== undefined) throw this.fault
      const { resolvedStart } = this
      this.resolvedStart = undefined
      if (resolvedStart !== undefined)
        return { batch: EMPTY, partition: this.partition, last: resolvedStart, at: within(0, () => resolvedStart) }
      if (this.bounded && (this.endOffset === undefined || this.deliveredOffset >= this.endOffset)) return null
      if (await this.buffer.linger(clock, signal)) continue
      const messages = this.buffer.take(Infinity, clock.monotonic())
      if (messages.length === 0) await unlessAborted(this.notifier.wait(), signal)
      else {
        const delivery = this.delivery(messages)
        if (delivery !== undefined) return delivery
      }
    }
  }

  async commit(): Promise<void> {
    /* The state of the flow keeps the position. */
  }

  async ends(): Promise<ReadonlyMap<string, Position | null>> {
    const { connection } = this
    if (connection === undefined) throw new Disconnected('not connected')
    if (!this.bounded) this.endOffset = await connection.lastOffset(this.stream, Infinity)
    return this.setEnd(this.endOffset)
  }

  /** Uses chunks, because the broker knows when each of them was written. */
  async endsAt(time: number): Promise<ReadonlyMap<string, Position | null>> {
    const { connection } = this
    if (connection === undefined) throw new Disconnected('not connected')
    if (this.bounded) return this.setEnd(this.endOffset)
    // The order matters: messages that arrive meanwhile are later than any past time.
    const last = await connection.lastOffset(this.stream, Infinity)
    const later =
      last === undefined ? undefined : await connection.firstOffsetSince(this.stream, Math.ceil(time / 1000))
    const end = later === undefined ? last : Math.min(last ?? -1, later - 1)
    return this.setEnd(end === -1 ? undefined : end)
  }

  private setEnd(end: number | undefined): ReadonlyMap<string, Position | null> {
    this.endOffset = end
    this.bounded = true
    return new Map([[this.stream, end === undefined ? null : String(end)]])
  }

  async close(): Promise<void> {
    const { connection, lifetime } = this
    this.connection = this.lifetime = undefined
    lifetime?.controller.abort(new Disconnected('closed here'))
    lifetime?.dispose()
    await connection?.close()
    this.buffer.clear()
  }

  private async startOffset(connection: Connection, ctx: SourceContext): Promise<StartOffset> {
    const stored = ctx.resume(this.stream)
    this.lastRead = undefined
    if (this.isRecreated)
      return this.deliveredOffset === -1 || stored === undefined ? 'first' : this.resumeAt(connection, ctx, stored)
    if (stored !== undefined) return this.resumeAt(connection, ctx, stored)
    const start = parseStart(this.target.options.start, ctx.clock.now())
    switch (start.kind) {
      case 'first':
        return 'first'
      case 'next':
        return this.startAfter(await connection.lastOffset(this.stream, Infinity), 0)
      case 'offset':
        return this.startAtOffset(start.offset, await connection.lastOffset(this.stream, start.offset), ctx)
      case 'time': {
        const first = await connection.firstOffsetSince(this.stream, Math.floor(start.at / 1000))
        return first === undefined
          ? this.startAfter(await connection.lastOffset(this.stream, Infinity), 0)
          : this.startFrom(first)
      }
      case 'back':
        return this.startAfter(await connection.lastOffset(this.stream, Infinity), start.count)
    }
  }

  /** The offset is fixed now, so that messages are not missed while the connection is away for a moment. */
  private startAfter(last: number | undefined, back: number): number {
    return this.startFrom(Math.max(0, (last ?? -1) + 1 - back))
  }
  private startFrom(begin: number): number {
    if (begin > 0) this.resolvedStart = `${begin - 1}:`
    // Messages before it count as returned, because there may be no others until the end.
    this.deliveredOffset = begin - 1
    return begin
  }

  /** If the offset lies beyond the end, the broker would send nothing until the stream has grown to it. */
  private startAtOffset(wanted: number, last: number | undefined, ctx: SourceContext): number {
    const next = (last ?? -1) + 1
    if (wanted > next)
      ctx.log.warn(`start=${wanted} lies beyond the end of stream '${this.stream}', which is ${next}: it begins there`)
    return this.startFrom(Math.min(wanted, next))
  }

  private async resumeAt(connection: Connection, ctx: SourceContext, stored: Position): Promise<StartOffset> {
    const known = parsePosition(stored)
    const last = await connection.lastOffset(this.stream, known.offset)
    if (last === undefined || last < known.offset) {
      this.markRecreated(ctx, last === undefined ? 'it is empty' : `it ends at ${last}`, known.offset)
      return 'first'
    }
    this.lastRead = known
    this.deliveredOffset = known.offset
    return known.offset
  }

  private markRecreated(ctx: SourceContext, why: string, offset: number): void {
    ctx.log.warn(
      `stream '${this.stream}' was made anew: ${why}, and what was read last lay at ${offset}; it is read from its start`,
    )
    this.isRecreated = true
    this.deliveredOffset = -1
  }

  /** Returns undefined if no message is new. */
  private delivery(taken: readonly Message[]): Delivery | undefined {
    const { ctx, connection, lastRead } = this
    const first = taken[0]
    const last = taken.at(-1)
    if (ctx === undefined || connection === undefined || first === undefined || last === undefined) return undefined
    const offset = offsetOf(first)
    let messages = taken
    if (lastRead !== undefined) {
      this.lastRead = undefined
      if (offset === lastRead.offset && (lastRead.hash === '' || hashOf(first) === lastRead.hash))
        messages = taken.slice(1)
      else if (offset <= lastRead.offset) {
        this.markRecreated(ctx, 'its messages are others', lastRead.offset)
        throw new Disconnected(`stream '${this.stream}' was made anew`)
      } else if (offset > lastRead.offset + 1)
        ctx.gap({
          partition: this.stream,
          from: String(lastRead.offset + 1),
          to: String(offset - 1),
          why: "the stream's retention has removed them",
          records: offset - lastRead.offset - 1,
        })
    }
    connection.acknowledgeUpTo(last.tag)
    const { endOffset } = this
    if (endOffset !== undefined && offsetOf(last) > endOffset)
      messages = messages.filter((message) => offsetOf(message) <= endOffset)
    const newest = messages.at(-1)
    if (newest === undefined) {
      this.deliveredOffset = Math.max(this.deliveredOffset, offsetOf(last))
      return undefined
    }
    this.deliveredOffset = offsetOf(newest)
    if (endOffset !== undefined && offsetOf(last) > endOffset) this.deliveredOffset = endOffset
    return {
      batch: new MessageBatch(messages, this.reading),
      partition: this.partition,
      last: positionOf(newest),
      at: within(messages.length, (index) => positionOf(messages[index] ?? newest)),
    }
  }

  private fail(fault: ManifoldError): void {
    this.fault ??= fault
    this.buffer.clear()
    this.notifier.notify()
  }
}

function offsetOf({ properties }: Message): number {
  const offset = streamOffset(properties)
  if (offset === undefined)
    throw new Refused('its messages have no offset: it is a queue and not a stream, leave out stream')
  return offset
}
function hashOf({ body }: Message): string {
  return createHash('sha256').update(body).digest('base64url').slice(0, 16)
}

/** Encodes a position as OFFSET:HASH of the last message. The hash is empty if the message was not read. */
function positionOf(message: Message): Position {
  return `${offsetOf(message)}:${hashOf(message)}`
}
function parsePosition(position: Position): { readonly offset: number; readonly hash: string } {
  const [offset = '', hash = ''] = position.split(':')
  return { offset: Number(offset), hash }
}
