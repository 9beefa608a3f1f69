/**
 * The registered consumer that shards are pushed to: looked for, registered where there is none, taken away at the end
 * of the process that registered it.
 *
 * - One that was there, or that `consumer-arn` names, is used and left.
 * - What this process registered it deregisters when it ends in order, and not where the source is closed to be opened
 *   again. A process that was killed leaves it; the next one finds it there, uses it and leaves it.
 * - Processes that share the shards read through one consumer: none of them takes it away.
 */
import type { SourceContext } from '../../core/contract'
import { Disconnected, lineOf, Refused, Throttled } from '../../core/errors'
import { isForbidden } from './errors'
import { InUse, type Consumer, type KinesisWire } from './wire'

/** Being made, or unmade, takes some seconds to a minute; between two looks, and until that is a fault. */
const LOOK_MS = 1000
const READY_MS = 300_000
/** Deregistering may hold up the end of the run for so long. */
const LEAVE_MS = 5000
/** A consumer that is still being made cannot be deregistered yet: so long until it is tried again. */
const LEAVE_AGAIN_MS = 250

export interface Named {
  /** As it was given: name or ARN. */
  readonly consumer: string
  /** Other processes read through it, too. */
  readonly shared: boolean
}
type Wire = Pick<KinesisWire, 'consumer' | 'register' | 'deregister' | 'stream' | 'close'>

export class Registration {
  private ours:
    | (Named & { /** Unknown where nobody knows whether registering it succeeded. */ readonly arn?: string })
    | undefined
  private told = false
  private looking: Promise<Consumer> | undefined
  private ctx: SourceContext | undefined

  /** Resolves once it can be subscribed with. */
  ready(named: Named, wire: Wire, ctx: SourceContext, signal: AbortSignal): Promise<Consumer> {
    this.ctx = ctx
    return (this.looking = this.look(named, wire, ctx, signal))
  }

  /** The last close. Never throws. @param connect where `wire` is closed already */
  async leave(wire: Wire | undefined, connect: (signal: AbortSignal) => Promise<Wire>): Promise<void> {
    // It fails with the signal that ended it; what it has left behind is what counts.
    await this.looking?.catch(() => undefined)
    const { ours, ctx } = this
    this.ours = undefined
    if (ours === undefined || ours.shared || ctx === undefined) return
    const bound = new AbortController()
    const over = new AbortController()
    ctx.clock.sleep(LEAVE_MS, over.signal).then(
      () => {
        bound.abort(new Disconnected('no answer in time'))
      },
      () => undefined,
    )
    let own: Wire | undefined
    try {
      const at = wire ?? (own = await connect(bound.signal))
      const found = await at.consumer(ours.consumer, bound.signal)
      // One of the name that was made since is somebody else's.
      if (found !== undefined && found.status !== 'DELETING' && (ours.arn === undefined || ours.arn === found.arn)) {
        await this.deregister(found, at, ctx, bound.signal)
        ctx.log.info(`deregistered the consumer ${ours.consumer}`)
      }
    } catch (error) {
      ctx.log.warn(
        `the consumer ${ours.consumer} could not be deregistered and goes on to cost (${lineOf(error)}): aws kinesis deregister-stream-consumer takes it away`,
      )
    }
    over.abort()
    own?.close()
  }

  private async deregister(consumer: Consumer, at: Wire, { clock }: SourceContext, signal: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await at.deregister(consumer, signal)
        return
      } catch (error) {
        if (!(error instanceof InUse || error instanceof Throttled)) throw error
        await clock.sleep(LEAVE_AGAIN_MS, signal)
      }
    }
  }

  private async look(
    { consumer, shared }: Named,
    wire: Wire,
    { clock, log }: SourceContext,
    signal: AbortSignal,
  ): Promise<Consumer> {
    const isArn = consumer.startsWith('arn:')
    const { arn: stream, name } = wire.stream
    if (isArn && stream !== '' && !consumer.startsWith(`${stream}/consumer/`))
      throw new Refused(`consumer-arn= is not a consumer of this stream, ${stream}, but ${consumer}`)
    const since = clock.monotonic()
    for (let waited = ''; ; ) {
      const found = await this.find(consumer, isArn, wire, signal)
      if (found?.status === 'ACTIVE') {
        if (this.ours?.arn !== undefined && this.ours.arn !== found.arn) this.ours = undefined
        if (this.ours === undefined && !this.told)
          log.info(`the consumer ${found.name} is there: it is used, and left at the end`)
        this.told = true
        return found
      }
      if (found === undefined && isArn)
        throw new Refused(
          `stream ${name} has no consumer ${consumer}: correct consumer-arn=, or name one with consumer-name=, which registers it`,
        )
      if (found === undefined) await this.register({ consumer, shared }, wire, log, signal)
      else if (waited !== found.status)
        log.info(`the consumer ${consumer} is ${(waited = found.status)}: waiting for it`)
      if (clock.monotonic() - since > READY_MS)
        throw new Disconnected(
          `the consumer ${consumer} is still ${found?.status ?? 'not there'} after ${READY_MS / 60_000} minutes`,
        )
      await clock.sleep(LOOK_MS, signal)
    }
  }

  /** One that is named by its ARN can be used without a look at it. */
  private async find(consumer: string, isArn: boolean, wire: Wire, signal: AbortSignal): Promise<Consumer | undefined> {
    try {
      return await wire.consumer(consumer, signal)
    } catch (error) {
      if (isArn && error instanceof Refused && isForbidden(error.cause))
        return { name: consumer.replace(/^.*\/consumer\/|:\d+$/g, ''), arn: consumer, status: 'ACTIVE' }
      throw error
    }
  }

  private async register(named: Named, wire: Wire, log: SourceContext['log'], signal: AbortSignal): Promise<void> {
    const before = this.ours
    try {
      this.ours ??= named
      const { arn } = await wire.register(named.consumer, signal)
      this.ours = { ...named, arn }
      this.told = true
      log.info(
        `registered the consumer ${named.consumer}: ${named.shared ? 'with leases= others read through it, too, so it stays at the end (aws kinesis deregister-stream-consumer takes it away)' : 'it is deregistered at the end'}`,
      )
    } catch (error) {
      // Somebody else was quicker, or the service has not told of ours yet.
      if (error instanceof InUse) {
        this.ours = before
        return
      }
      // Without an answer it may be there.
      if (error instanceof Refused || error instanceof Throttled) this.ours = before
      throw error
    }
  }
}
