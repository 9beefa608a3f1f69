/** A RabbitMQ node of the tests' own, and a look into its queues by another client object than the endpoint's. */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { connect, type ChannelModel, type ConfirmChannel, type GetMessage, type Options } from 'amqplib'

const BIN = '/usr/lib/rabbitmq/bin'

export interface BrokerOptions { readonly consumerTimeoutMs?: number; readonly conf?: readonly string[]; readonly certificates?: { readonly ca: string; readonly cert: string; readonly key: string } }

export function available(): boolean { return existsSync(join(BIN, 'rabbitmq-server')) }

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

export class Broker {
  private child: ChildProcess | undefined
  private peer: ChannelModel | undefined

  private constructor(readonly dir: string, readonly port: number, readonly tlsPort: number, private readonly distPort: number) {}

  static async start(options: BrokerOptions = {}): Promise<Broker> {
    const dir = mkdtempSync(join(tmpdir(), 'manifold-rabbitmq-'))
    for (const folder of ['mnesia', 'log', 'config']) mkdirSync(join(dir, folder))
    const broker = new Broker(dir, await freePort(), await freePort(), await freePort())
    const { certificates, consumerTimeoutMs } = options
    writeFileSync(join(dir, 'rabbitmq.conf'), [
      `listeners.tcp.1 = 127.0.0.1:${broker.port}`, 'loopback_users.guest = true', 'disk_free_limit.absolute = 50MB', 'vm_memory_high_watermark.absolute = 1GB', 'log.console = true', 'log.file = false',
      ...(certificates === undefined ? [] : [
        `listeners.ssl.1 = 127.0.0.1:${broker.tlsPort}`, `ssl_options.cacertfile = ${certificates.ca}`, `ssl_options.certfile = ${certificates.cert}`, `ssl_options.keyfile = ${certificates.key}`,
        'ssl_options.verify = verify_peer', 'ssl_options.fail_if_no_peer_cert = false', 'auth_mechanisms.1 = PLAIN', 'auth_mechanisms.2 = EXTERNAL', 'ssl_cert_login_from = common_name',
      ]),
      ...(options.conf ?? []), '',
    ].join('\n'))
    // As keys of rabbitmq.conf these prevent the start.
    writeFileSync(join(dir, 'advanced.config'), `[{rabbit,[${consumerTimeoutMs === undefined ? '' : `{consumer_timeout,${consumerTimeoutMs}},`}{channel_tick_interval,${consumerTimeoutMs === undefined ? 60_000 : 1000}}]}].\n`)
    writeFileSync(join(dir, 'enabled_plugins'), `[${certificates === undefined ? '' : 'rabbitmq_auth_mechanism_ssl'}].\n`)
    writeFileSync(join(dir, 'rabbitmq-env.conf'), '')
    await broker.launch()
    return broker
  }

  private environment(): NodeJS.ProcessEnv {
    const { dir } = this
    return {
      ...process.env, HOME: dir, RABBITMQ_NODENAME: `m${this.port}@localhost`, RABBITMQ_BASE: dir, RABBITMQ_MNESIA_BASE: join(dir, 'mnesia'), RABBITMQ_LOG_BASE: join(dir, 'log'), RABBITMQ_CONFIG_FILE: join(dir, 'rabbitmq.conf'),
      RABBITMQ_ADVANCED_CONFIG_FILE: join(dir, 'advanced.config'), RABBITMQ_CONF_ENV_FILE: join(dir, 'rabbitmq-env.conf'), RABBITMQ_ENABLED_PLUGINS_FILE: join(dir, 'enabled_plugins'), RABBITMQ_GENERATED_CONFIG_DIR: join(dir, 'config'),
      RABBITMQ_PID_FILE: join(dir, 'pid'), RABBITMQ_DIST_PORT: String(this.distPort), ERL_EPMD_ADDRESS: '127.0.0.1', RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1', RABBITMQ_NODE_PORT: String(this.port), LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8',
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
    }
  }

  private async launch(): Promise<void> {
    rmSync(join(this.dir, 'pid'), { force: true })
    const child = this.child = spawn(join(BIN, 'rabbitmq-server'), [], { env: this.environment(), stdio: 'ignore', detached: true })
    for (let tries = 0; tries < 600 && child.exitCode === null; tries++) {
      if (existsSync(join(this.dir, 'pid')) && await this.answers()) return
      await new Promise((resolve) => { setTimeout(resolve, 100) })
    }
    throw new Error('RabbitMQ did not start')
  }

  /** Whether it begins to speak AMQP. */
  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = createConnection(this.port, '127.0.0.1', () => { socket.write('AMQP\0\0\x09\x01') })
      socket.setTimeout(1000, () => { socket.destroy() })
      socket.once('data', () => { resolve(true); socket.destroy() })
      socket.on('error', () => undefined)
      socket.once('close', () => { resolve(false) })
    })
  }

  uri(rest = '', login = ''): string { return `amqp://${login}127.0.0.1:${this.port}${rest}` }

  /** rabbitmqctl: a second or two. */
  async ctl(...args: string[]): Promise<string> { return (await promisify(execFile)(join(BIN, 'rabbitmqctl'), ['-q', ...args], { env: this.environment() })).stdout }

  /** A connection for looking and putting; made anew after the node was down. */
  async channel(): Promise<ConfirmChannel> {
    if (this.peer === undefined) {
      const peer = this.peer = await connect(this.uri(), { noDelay: true })
      peer.on('error', () => undefined)
      peer.on('close', () => { if (this.peer === peer) this.peer = undefined })
    }
    const channel = await this.peer.createConfirmChannel()
    channel.on('error', () => undefined)
    return channel
  }

  async declare(queue: string, options: Options.AssertQueue = {}): Promise<string> {
    const channel = await this.channel()
    await channel.assertQueue(queue, options)
    await channel.close()
    return queue
  }

  async put(queue: string, bodies: Iterable<string | Buffer>, options: Options.Publish | ((index: number) => Options.Publish) = {}): Promise<void> {
    const channel = await this.channel()
    let index = 0
    for (const body of bodies) {
      const more = channel.sendToQueue(queue, Buffer.from(body as string), { persistent: true, ...(typeof options === 'function' ? options(index) : options) })
      if (!more || ++index % 5000 === 0) await channel.waitForConfirms()
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
    if (count > 0) await new Promise<void>((resolve, reject) => {
      channel.once('close', () => { reject(new Error('the channel was closed')) })
      channel.consume(queue, (message) => {
        if (message === null || messages.push(message as unknown as GetMessage) === count) resolve()
      }, { noAck: true }).catch(reject)
    })
    await channel.close()
    return messages
  }

  private get pid(): number { return Number(readFileSync(join(this.dir, 'pid'), 'utf8')) }

  /** As a power cut of the process. */
  async kill(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const { child } = this
    this.peer = undefined
    if (child === undefined || child.exitCode !== null) return
    process.kill(this.pid, signal)
    if (child.exitCode === null) await once(child, 'exit')
  }
  async restart(): Promise<void> {
    await this.kill()
    await this.launch()
  }
  async stop(): Promise<void> {
    await this.peer?.close().catch(() => undefined)
    await this.kill()
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 3 })
  }
}
