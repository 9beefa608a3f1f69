import fs from 'node:fs'
import net from 'node:net'
import { connect, credentials } from 'amqplib'
import { describeWith } from './describe-with'
import { type SecureRabbitmqServer, startRabbitmq } from './rabbitmq'

/** A start takes some seconds on a machine that is idle. */
const PATIENT = 120_000

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => {
      resolve(true)
      socket.destroy()
    })
    socket.on('error', () => {
      resolve(false)
    })
  })
}

describeWith('rabbitmq', 'a RabbitMQ node of the tests', () => {
  let server: SecureRabbitmqServer
  let ports: readonly number[]
  beforeAll(async () => {
    server = await startRabbitmq({ secure: true, consumerTimeoutMs: 1500 })
    ports = server.ports
  }, PATIENT)
  afterAll(async () => {
    await server?.stop()
  }, PATIENT)

  async function comesIn(uri: string, pem?: { readonly cert: string; readonly key: string }): Promise<string> {
    const tls = {
      ca: [fs.readFileSync(server.certificates.ca)],
      ...(pem === undefined
        ? {}
        : { cert: fs.readFileSync(pem.cert), key: fs.readFileSync(pem.key), credentials: credentials.external() }),
    }
    try {
      const connection = await connect(uri, uri.startsWith('amqps') ? tls : {})
      await connection.close()
      return 'in'
    } catch (error) {
      return (error as Error).message
    }
  }

  it('knows its users by password and certificate, and nobody else', async () => {
    const { uri, tlsUri, certificates, users } = server
    const as = (name: string, password: string, base = uri) => base.replace('//', `//${name}:${password}@`)
    expect(await comesIn(uri)).toBe('in')
    expect(await comesIn(as('alice', users.alice))).toBe('in')
    expect(await comesIn(as('alice', 'wrong'))).toMatch(/ACCESS_REFUSED|403/)
    expect(await comesIn(as('carol', users.carol, tlsUri))).toBe('in')
    expect(await comesIn(tlsUri, certificates.clients.alice)).toBe('in')
    expect(await comesIn(tlsUri, certificates.stranger)).toMatch(/unknown ca/)
  })
  it('closes the channel of a consumer that does not acknowledge in time', async () => {
    const connection = await connect(server.uri)
    const channel = await connection.createConfirmChannel()
    const fault = new Promise<Error>((resolve) => {
      channel.once('error', resolve)
    })
    const { queue } = await channel.assertQueue('', { exclusive: true })
    channel.sendToQueue(queue, Buffer.from('x'))
    await channel.consume(queue, () => undefined)
    expect((await fault).message).toMatch(/PRECONDITION.FAILED.*[Tt]imeout/)
    await connection.close()
  })
  it(
    'survives kill -9 with its durable messages and its ports',
    async () => {
      const { uri, pid } = server
      const connection = await connect(uri)
      connection.on('error', () => undefined)
      const channel = await connection.createConfirmChannel()
      channel.on('error', () => undefined)
      await channel.assertQueue('kept', { durable: true })
      channel.sendToQueue('kept', Buffer.from('x'), { persistent: true })
      await channel.waitForConfirms()
      // What was declared is written behind by seconds, unlike messages.
      await server.ctl('eval', 'mnesia:sync_log().')
      await server.kill()
      expect(() => process.kill(pid!, 0)).toThrow('ESRCH')
      await server.restart()
      expect(server.uri).toBe(uri)
      expect((await server.ctl('list_queues', 'name', 'messages')).trim()).toMatch(/^kept\s+1$/m)
    },
    PATIENT,
  )
  it(
    'leaves neither port mapper, nor node, nor folder',
    async () => {
      expect(await Promise.all(ports.map(listens))).toEqual([true, true, true, true])
      server.freeze()
      await server.stop()
      expect(await Promise.all(ports.map(listens))).toEqual([false, false, false, false])
      expect(fs.existsSync(server.dir)).toBe(false)
    },
    PATIENT,
  )
})
