/**
 * A stream. Nothing is taken from it, so the position is kept here: the offset of the last message that was handed on,
 * and a hash of its value.
 *
 * - It is resumed at that message, not after it: where it has another value, or the stream ends before it, the stream
 *   was made anew and is read from its start. (AMQP tells neither creation time nor id of a stream, and of one that is
 *   too short it would deliver nothing, in silence.)
 * - What retention has removed before it was read is a gap.
 * - Acknowledgements are mere credit: a message is acknowledged as it is handed on.
 */
import { createHash } from 'node:crypto'
import { EMPTY, within } from '../../core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Refused, type ManifoldError } from '../../core/errors'
import { linkedAbort, unlessAborted, Wake } from '../../kit/signal'
import type { Target } from '../../options/define'
import { connect, type Link } from './client'
import type { Message } from './deliveries'
import { Inbox, MessageBatch } from './inbox'
import type { AmqpOptions } from './options'
import { STREAM_OFFSET, streamOffset } from './properties'
import { isInsecure, settingsOf } from './settings'
import { parseStart } from './start'
import { prepareQueue } from './topology'

/** Credit. What is handed on gives it back at once, so that it covers a round trip only. */
const AHEAD = 2000

type Begin = 'first' | number

export class StreamSource implements Source {
  private readonly wake = new Wake()
  private readonly inbox = new Inbox()
  private readonly stream: string
  private ctx: SourceContext | undefined
  private link: Link | undefined
  private life: ReturnType<typeof linkedAbort> | undefined
  private fault: ManifoldError | undefined
  private partition: Partition
  private host = 0
  /** The message that is there already, if the stream is still the same. */
  private known: { readonly offset: number; readonly hash: string } | undefined
  /** It was found to be another than before, and is read from its start. */
  private anew = false
  /** Offset of the last message that was handed on. */
  private handed = -1
  /** Where `--until end` stops. */
  private end: number | undefined
  private bounded = false
  /** Where `start` was resolved to, to be stored before anything is read. */
  private resolved: Position | undefined

  constructor(private readonly target: Target<AmqpOptions>) {
    this.stream = target.options.queue ?? ''
    this.partition = { name: this.stream, epoch: 0 }
  }

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
    const { signal } = (this.life = linkedAbort(ctx.signal)).controller
    if (isInsecure(this.target.options) && this.target.uri.scheme === 'amqps')
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const given = await this.target.resolve()
    const settings = await settingsOf(given, 'source')
    this.inbox.clear()
    this.fault = undefined
    this.partition = { name: this.stream, epoch: this.partition.epoch + 1 }
    const { link, host } = await connect(
      settings,
      this.host,
      {
        doing: `reading stream '${this.stream}'`,
        message: (message) => {
          this.inbox.push(message)
          this.wake.wake()
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
    this.link = link
    this.host = host
    void link.ended.then((fault) => {
      if (this.link === link) this.fail(fault)
    })
    await link.ask((channel) => prepareQueue(channel, this.stream, given.options))
    const begin = await this.begin(link, ctx)
    const { consumer, prefetch } = given.options
    await link.ask((channel) => channel.prefetch(prefetch > 0 ? prefetch : AHEAD))
    await link.consume(this.stream, {
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
      const { resolved } = this
      this.resolved = undefined
      if (resolved !== undefined)
        return { batch: EMPTY, partition: this.partition, last: resolved, at: within(0, () => resolved) }
      if (this.bounded && (this.end === undefined || this.handed >= this.end)) return null
      if (await this.inbox.gather(clock, signal)) continue
      const messages = this.inbox.take(Infinity, clock.monotonic())
      if (messages.length === 0) await unlessAborted(this.wake.wait(), signal)
      else {
        const delivery = this.delivery(messages)
        if (delivery !== undefined) return delivery
      }
    }
  }

  async commit(): Promise<void> {
    /* The position is kept here. */
  }

  async ends(): Promise<ReadonlyMap<string, Position | null>> {
    const { link } = this
    if (link === undefined) throw new Disconnected('not connected')
    if (!this.bounded) this.end = await link.lastOffset(this.stream, Infinity)
    return this.endAt(this.end)
  }

  /** By chunks, of each of which the broker knows when it was written. */
  async endsAt(time: number): Promise<ReadonlyMap<string, Position | null>> {
    const { link } = this
    if (link === undefined) throw new Disconnected('not connected')
    if (this.bounded) return this.endAt(this.end)
    // In this order: what comes meanwhile is later than any time that has passed.
    const last = await link.lastOffset(this.stream, Infinity)
    const later = last === undefined ? undefined : await link.firstOffsetSince(this.stream, Math.ceil(time / 1000))
    const end = later === undefined ? last : Math.min(last ?? -1, later - 1)
    return this.endAt(end === -1 ? undefined : end)
  }

  private endAt(end: number | undefined): ReadonlyMap<string, Position | null> {
    this.end = end
    this.bounded = true
    return new Map([[this.stream, end === undefined ? null : String(end)]])
  }

  async close(): Promise<void> {
    const { link, life } = this
    this.link = this.life = undefined
    life?.controller.abort(new Disconnected('closed here'))
    life?.dispose()
    await link?.close()
    this.inbox.clear()
  }

  private async begin(link: Link, ctx: SourceContext): Promise<Begin> {
    const stored = ctx.resume(this.stream)
    this.known = undefined
    if (this.anew) return this.handed === -1 || stored === undefined ? 'first' : this.resumed(link, ctx, stored)
    if (stored !== undefined) return this.resumed(link, ctx, stored)
    const start = parseStart(this.target.options.start, ctx.clock.now())
    switch (start.kind) {
      case 'first':
        return 'first'
      case 'next':
        return this.after(await link.lastOffset(this.stream, Infinity), 0)
      case 'offset':
        return this.atOffset(start.offset, await link.lastOffset(this.stream, start.offset), ctx)
      case 'time': {
        const first = await link.firstOffsetSince(this.stream, Math.floor(start.at / 1000))
        return first === undefined ? this.after(await link.lastOffset(this.stream, Infinity), 0) : this.from(first)
      }
      case 'back':
        return this.after(await link.lastOffset(this.stream, Infinity), start.count)
    }
  }

  /** What comes while we are away for a moment is not missed: it counts from what is there now. */
  private after(last: number | undefined, back: number): number {
    return this.from(Math.max(0, (last ?? -1) + 1 - back))
  }
  private from(begin: number): number {
    if (begin > 0) this.resolved = `${begin - 1}:`
    // What lies before it counts as handed on: it may be all that there is until the end.
    this.handed = begin - 1
    return begin
  }

  /** Of an offset beyond the end the broker would send nothing until the stream has grown so far. */
  private atOffset(wanted: number, last: number | undefined, ctx: SourceContext): number {
    const next = (last ?? -1) + 1
    if (wanted > next)
      ctx.log.warn(`start=${wanted} lies beyond the end of stream '${this.stream}', which is ${next}: it begins there`)
    return this.from(Math.min(wanted, next))
  }

  private async resumed(link: Link, ctx: SourceContext, stored: Position): Promise<Begin> {
    const known = parsePosition(stored)
    const last = await link.lastOffset(this.stream, known.offset)
    if (last === undefined || last < known.offset) {
      this.madeAnew(ctx, last === undefined ? 'it is empty' : `it ends at ${last}`, known.offset)
      return 'first'
    }
    this.known = known
    this.handed = known.offset
    return known.offset
  }

  private madeAnew(ctx: SourceContext, why: string, offset: number): void {
    ctx.log.warn(
      `stream '${this.stream}' was made anew: ${why}, and what was read last lay at ${offset}; it is read from its start`,
    )
    this.anew = true
    this.handed = -1
  }

  /** undefined: nothing of it is new. */
  private delivery(taken: readonly Message[]): Delivery | undefined {
    const { ctx, link, known } = this
    const first = taken[0]
    const last = taken.at(-1)
    if (ctx === undefined || link === undefined || first === undefined || last === undefined) return undefined
    const offset = offsetOf(first)
    let messages = taken
    if (known !== undefined) {
      this.known = undefined
      if (offset === known.offset && (known.hash === '' || hashOf(first) === known.hash)) messages = taken.slice(1)
      else if (offset <= known.offset) {
        this.madeAnew(ctx, 'its messages are others', known.offset)
        throw new Disconnected(`stream '${this.stream}' was made anew`)
      } else if (offset > known.offset + 1)
        ctx.gap({
          partition: this.stream,
          from: String(known.offset + 1),
          to: String(offset - 1),
          why: "the stream's retention has removed them",
          records: offset - known.offset - 1,
        })
    }
    link.acknowledge(last.tag)
    const { end } = this
    if (end !== undefined && offsetOf(last) > end) messages = messages.filter((message) => offsetOf(message) <= end)
    const newest = messages.at(-1)
    if (newest === undefined) {
      this.handed = Math.max(this.handed, offsetOf(last))
      return undefined
    }
    this.handed = offsetOf(newest)
    if (end !== undefined && offsetOf(last) > end) this.handed = end
    return {
      batch: new MessageBatch(messages, STREAM_OFFSET),
      partition: this.partition,
      last: positionOf(newest),
      at: within(messages.length, (index) => positionOf(messages[index] ?? newest)),
    }
  }

  private fail(fault: ManifoldError): void {
    this.fault ??= fault
    this.inbox.clear()
    this.wake.wake()
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

/** OFFSET:HASH of the last message; without hash where only its place was asked for. */
function positionOf(message: Message): Position {
  return `${offsetOf(message)}:${hashOf(message)}`
}
function parsePosition(position: Position): { readonly offset: number; readonly hash: string } {
  const [offset = '', hash = ''] = position.split(':')
  return { offset: Number(offset), hash }
}
