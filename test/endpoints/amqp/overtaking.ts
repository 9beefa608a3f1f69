/**
 * Between us and a broker: no delivery is passed on until a queue.declare-ok that follows the consume-ok has been, and
 * has been reacted to. So would a broker do whose channel asks the queue for its count while deliveries of that queue
 * lie in the channel's mailbox.
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

const METHOD = 1
const CONSUME_OK = (60 << 16) | 21,
  DELIVER = (60 << 16) | 60,
  DECLARE_OK = (50 << 16) | 11
const HEAD = 7,
  OVERHEAD = 8

export interface Overtaking {
  readonly port: number
  stop(): Promise<void>
}

export async function overtaking(port: number): Promise<Overtaking> {
  const sockets: Socket[] = []
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1')
    sockets.push(near, far)
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.on('error', () => undefined)
      socket.on('close', () => {
        other.destroy()
      })
    }
    const order = new Order((bytes) => {
      near.write(bytes)
    })
    near.on('data', (bytes: Buffer) => {
      // Its answer does not include them.
      order.release()
      far.write(bytes)
    })
    far.on('data', (bytes: Buffer) => {
      order.take(bytes)
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    stop: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => {
          resolve()
        })
      }),
  }
}

class Order {
  private rest: Buffer = Buffer.alloc(0)
  private readonly held: Buffer[] = []
  private holding: 'not yet' | 'deliveries' | 'all' | 'no more' = 'not yet'
  private inMessage = false

  constructor(private readonly pass: (bytes: Buffer) => void) {}

  take(bytes: Buffer): void {
    this.rest = Buffer.concat([this.rest, bytes])
    while (this.rest.length >= OVERHEAD && this.rest.length >= OVERHEAD + this.rest.readUInt32BE(3)) {
      const end = OVERHEAD + this.rest.readUInt32BE(3)
      this.frame(this.rest.subarray(0, end))
      this.rest = this.rest.subarray(end)
    }
  }

  private frame(bytes: Buffer): void {
    const method = bytes[0] === METHOD ? bytes.readUInt32BE(HEAD) : undefined
    if (method !== undefined) this.inMessage = method === DELIVER
    if (this.holding === 'all' || (this.holding === 'deliveries' && this.inMessage)) {
      this.held.push(bytes)
      return
    }
    this.pass(bytes)
    if (method === CONSUME_OK && this.holding === 'not yet') this.holding = 'deliveries'
    if (method === DECLARE_OK && this.holding === 'deliveries') this.holding = 'all'
  }

  /** The delayed frames follow the answer that overtook them. */
  release(): void {
    if (this.holding !== 'all') return
    this.holding = 'no more'
    for (const each of this.held) this.pass(each)
  }
}
