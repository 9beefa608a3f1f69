/** Starts a RabbitMQ node for a test, and inspects its queues with a client of its own. */
import { connect, type ChannelModel, type ConfirmChannel, type GetMessage, type Options } from 'amqplib'
import {
  startRabbitmq,
  type RabbitmqOptions,
  type RabbitmqServer,
  type SecureRabbitmqServer,
} from '../../services/rabbitmq'

export class Broker<S extends RabbitmqServer = RabbitmqServer> {
  private peer: Promise<ChannelModel> | undefined

  private constructor(readonly server: S) {}

  static async start(options: RabbitmqOptions = {}): Promise<Broker> {
    return new Broker(await startRabbitmq({ own: true, ...options }))
  }
  static async startSecure(): Promise<Broker<SecureRabbitmqServer>> {
    return new Broker(await startRabbitmq({ secure: true }))
  }

  get port(): number {
    return this.server.port
  }
  uri(rest = '', login = ''): string {
    return `amqp://${login}127.0.0.1:${this.port}${rest}`
  }
  ctl(...args: string[]): Promise<string> {
    return this.server.ctl(...args)
  }

  /** A connection for looking and putting; made anew after the node was down. */
  async channel(): Promise<ConfirmChannel> {
    const channel = await (await (this.peer ??= this.connected())).createConfirmChannel()
    channel.on('error', () => undefined)
    return channel
  }

  /** One for all who ask while it is made. */
  private connected(): Promise<ChannelModel> {
    const opening: Promise<ChannelModel> = connect(`amqp://guest:guest@127.0.0.1:${this.port}`, { noDelay: true }).then(
      (peer) => {
        peer.on('error', () => undefined)
        peer.on('close', () => {
          this.forget(opening)
        })
        return peer
      },
    )
    opening.catch(() => {
      this.forget(opening)
    })
    return opening
  }
  private forget(peer: Promise<ChannelModel>): void {
    if (this.peer === peer) this.peer = undefined
  }

  async declare(queue: string, options: Options.AssertQueue = {}): Promise<string> {
    const channel = await this.channel()
    await channel.assertQueue(queue, options)
    await channel.close()
    return queue
  }

  async put(
    queue: string,
    bodies: Iterable<string | Buffer>,
    options: Options.Publish | ((index: number) => Options.Publish) = {},
  ): Promise<void> {
    const channel = await this.channel()
    let index = 0
    for (const body of bodies) {
      const more = channel.sendToQueue(queue, Buffer.from(body as string), {
        persistent: true,
        ...(typeof options === 'function' ? options(index) : options),
      })
      index++
      if (!more || index % 5000 === 0) await channel.waitForConfirms()
    }
    await channel.waitForConfirms()
    await channel.close()
  }

  async count(queue: string): Promise<number> {
    const channel = await this.channel()
    const { messageCount } = await channel.checkQueue(queue)
    await channel.close()
    return messageCount
  }

  /** Those that wait behind a single active one as well, which the queue's own count leaves out. */
  async consumers(queue: string): Promise<number> {
    const named = `element(4, proplists:get_value(queue_name, C)) =:= <<"${queue}">>`
    return Number(await this.server.evaluate(`length([C || C <- rabbit_amqqueue:consumers_all(<<"/">>), ${named}]).`))
  }
  /** Messages that are with a consumer as well, which `count` leaves out. */
  async held(queue: string): Promise<number> {
    const info = 'fun(Q) -> {ok, proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages]))} end'
    return Number(
      await this.server.evaluate(
        `{ok, N} = rabbit_amqqueue:with(rabbit_misc:r(<<"/">>, queue, <<"${queue}">>), ${info}), N.`,
      ),
    )
  }

  /** Everything in the queue, which is empty afterwards. */
  async drain(queue: string): Promise<readonly GetMessage[]> {
    const channel = await this.channel()
    const messages: GetMessage[] = []
    for (;;) {
      const message = await channel.get(queue, { noAck: true })
      if (message === false) break
      messages.push(message)
    }
    await channel.close()
    return messages
  }

  /** All that is there and comes until `count` are read, without acknowledgements: quick. */
  async collect(queue: string, count: number): Promise<readonly GetMessage[]> {
    const channel = await this.channel()
    const messages: GetMessage[] = []
    if (count > 0)
      await new Promise<void>((resolve, reject) => {
        channel.once('close', () => {
          reject(new Error('the channel was closed'))
        })
        channel
          .consume(
            queue,
            (message) => {
              if (message === null || messages.push(message as unknown as GetMessage) === count) resolve()
            },
            { noAck: true },
          )
          .catch(reject)
      })
    await channel.close()
    return messages
  }

  /**
   * As a power cut of the process. Its log of what was declared is written behind by seconds, unlike messages: it is
   * not what is tried here.
   */
  async kill(): Promise<void> {
    this.peer = undefined
    await this.ctl('eval', 'mnesia:sync_log().')
    await this.server.kill()
  }
  restart(): Promise<void> {
    this.peer = undefined
    return this.server.restart()
  }
  async stop(): Promise<void> {
    await this.peer?.then((peer) => peer.close()).catch(() => undefined)
    await this.server.stop()
  }
}
