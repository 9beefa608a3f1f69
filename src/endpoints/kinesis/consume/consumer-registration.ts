/**
 * The registered consumer that shards are pushed to: looked for, registered where there is none, taken away at the end
 * of the process that registered it.
 *
 * - One that was there, or that `consumer-arn` names, is used and left.
 * - What this process registered it deregisters when it ends in order, and not where the source is closed to be opened
 *   again. A process that was killed leaves it; the next one finds it there, uses it and leaves it.
 * - Processes that share the shards read through one consumer: none of them takes it away.
 */
import type { SourceContext } from '../../../core/contract'
import { Disconnected, lineOf, Refused, Throttled } from '../../../core/errors'
import { isForbidden } from '../errors'
import { InUse, type Consumer, type StreamClient } from '../stream-client'

/** Being made, or unmade, takes some seconds to a minute; between two looks, and until that is a fault. */
const DESCRIBE_EVERY_MS = 1000
const READY_MS = 300_000
/** Deregistering may hold up the end of the run for so long. */
const DEREGISTER_WITHIN_MS = 5000
/** A consumer that is still being made cannot be deregistered yet: so long until it is tried again. */
const DEREGISTER_EVERY_MS = 250

export interface ConsumerChoice {
  /** As it was given: name or ARN. */
  readonly consumer: string
  /** Other processes read through it, too. */
  readonly shared: boolean
}
type ConsumerClient = Pick<StreamClient, 'consumer' | 'register' | 'deregister' | 'stream' | 'close'>

export class ConsumerRegistration {
  private registered:
    | (ConsumerChoice & { /** Unknown where nobody knows whether registering it succeeded. */ readonly arn?: string })
    | undefined
  private reported = false
  private becomingReady: Promise<Consumer> | undefined
  private ctx: SourceContext | undefined

  /** Resolves once it can be subscribed with. */
  ready(choice: ConsumerChoice, client: ConsumerClient, ctx: SourceContext, signal: AbortSignal): Promise<Consumer> {
    this.ctx = ctx
    return (this.becomingReady = this.waitUntilActive(choice, client, ctx, signal))
  }

  /** The last close. Never throws. @param connect where `client` is closed already */
  async release(
    client: ConsumerClient | undefined,
    connect: (signal: AbortSignal) => Promise<ConsumerClient>,
  ): Promise<void> {
    // It fails with the signal that ended it; what it has left behind is what counts.
    await this.becomingReady?.catch(() => undefined)
    const { registered: ours, ctx } = this
    this.registered = undefined
    if (ours === undefined || ours.shared || ctx === undefined) return
    const deadline = new AbortController()
    const finished = new AbortController()
    ctx.clock.sleep(DEREGISTER_WITHIN_MS, finished.signal).then(
      () => {
        deadline.abort(new Disconnected('no answer in time'))
      },
      () => undefined,
    )
    let ownClient: ConsumerClient | undefined
    try {
      const openClient = client ?? (ownClient = await connect(deadline.signal))
      const found = await openClient.consumer(ours.consumer, deadline.signal)
      // One of the name that was made since is somebody else's.
      if (found !== undefined && found.status !== 'DELETING' && (ours.arn === undefined || ours.arn === found.arn)) {
        await this.deregister(found, openClient, ctx, deadline.signal)
        ctx.log.info(`deregistered the consumer ${ours.consumer}`)
      }
    } catch (error) {
      ctx.log.warn(
        `the consumer ${ours.consumer} could not be deregistered and goes on to cost (${lineOf(error)}): aws kinesis deregister-stream-consumer takes it away`,
      )
    }
    finished.abort()
    ownClient?.close()
  }

  private async deregister(
    consumer: Consumer,
    client: ConsumerClient,
    { clock }: SourceContext,
    signal: AbortSignal,
  ): Promise<void> {
    for (;;) {
      try {
        await client.deregister(consumer, signal)
        return
      } catch (error) {
        if (!(error instanceof InUse || error instanceof Throttled)) throw error
        await clock.sleep(DEREGISTER_EVERY_MS, signal)
      }
    }
  }

  private async waitUntilActive(
    { consumer, shared }: ConsumerChoice,
    client: ConsumerClient,
    { clock, log }: SourceContext,
    signal: AbortSignal,
  ): Promise<Consumer> {
    const isArn = consumer.startsWith('arn:')
    const { arn: stream, name } = client.stream
    if (isArn && stream !== '' && !consumer.startsWith(`${stream}/consumer/`))
      throw new Refused(`consumer-arn= is not a consumer of this stream, ${stream}, but ${consumer}`)
    const since = clock.monotonic()
    for (let waited = ''; ; ) {
      const found = await this.find(consumer, isArn, client, signal)
      if (found?.status === 'ACTIVE') {
        if (this.registered?.arn !== undefined && this.registered.arn !== found.arn) this.registered = undefined
        if (this.registered === undefined && !this.reported)
          log.info(`the consumer ${found.name} is there: it is used, and left at the end`)
        this.reported = true
        return found
      }
      if (found === undefined && isArn)
        throw new Refused(
          `stream ${name} has no consumer ${consumer}: correct consumer-arn=, or name one with consumer-name=, which registers it`,
        )
      if (found === undefined) await this.register({ consumer, shared }, client, log, signal)
      else if (waited !== found.status)
        log.info(`the consumer ${consumer} is ${(waited = found.status)}: waiting for it`)
      if (clock.monotonic() - since > READY_MS)
        throw new Disconnected(
          `the consumer ${consumer} is still ${found?.status ?? 'not there'} after ${READY_MS / 60_000} minutes`,
        )
      await clock.sleep(DESCRIBE_EVERY_MS, signal)
    }
  }

  /** One that is named by its ARN can be used without a look at it. */
  private async find(
    consumer: string,
    isArn: boolean,
    client: ConsumerClient,
    signal: AbortSignal,
  ): Promise<Consumer | undefined> {
    try {
      return await client.consumer(consumer, signal)
    } catch (error) {
      if (isArn && error instanceof Refused && isForbidden(error.cause))
        return { name: consumer.replace(/^.*\/consumer\/|:\d+$/g, ''), arn: consumer, status: 'ACTIVE' }
      throw error
    }
  }

  private async register(
    choice: ConsumerChoice,
    client: ConsumerClient,
    log: SourceContext['log'],
    signal: AbortSignal,
  ): Promise<void> {
    const before = this.registered
    try {
      this.registered ??= choice
      const { arn } = await client.register(choice.consumer, signal)
      this.registered = { ...choice, arn }
      this.reported = true
      log.info(
        `registered the consumer ${choice.consumer}: ${choice.shared ? 'with leases= others read through it, too, so it stays at the end (aws kinesis deregister-stream-consumer takes it away)' : 'it is deregistered at the end'}`,
      )
    } catch (error) {
      // Somebody else was quicker, or the service has not told of ours yet.
      if (error instanceof InUse) {
        this.registered = before
        return
      }
      // Without an answer it may be there.
      if (error instanceof Refused || error instanceof Throttled) this.registered = before
      throw error
    }
  }
}
